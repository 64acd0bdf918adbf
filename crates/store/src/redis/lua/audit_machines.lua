-- A slice of the audit: a bought machine is on its way, or its worker registered, or it is being destroyed.
--
-- ARGV     cursor, machines at a time
-- Reply    { violations, cursor }

local violations = {}
local function violation(text) violations[#violations + 1] = text end
local slice = call('HSCAN', P .. 'machines', arg(), 'COUNT', arg())
for i = 1, #slice[2], 2 do
  local id, machine = slice[2][i], unpacked(slice[2][i + 1])
  local raw = call('HGET', P .. 'workers', id)
  local worker, stage = raw and unpacked(raw), machine[8]
  if call('HEXISTS', P .. 'pools', machine[1]) == 0 then
    violation('machine ' .. id .. ' is of pool ' .. machine[1] .. ', which is not there')
  end
  if worker and worker[1] ~= machine[1] then
    violation('machine ' .. id .. ' is of pool ' .. machine[1] .. ' and its worker is not')
  end
  if worker and (stage == 'requested' or stage == 'booting') then
    violation('machine ' .. id .. ' is on its way and has registered')
  end
  if worker and stage == 'destroying' and worker[8] < 0 and worker[7] == 'ready' then
    violation('machine ' .. id .. ' is to be destroyed and takes new work')
  end
end
return { violations, slice[1] }
