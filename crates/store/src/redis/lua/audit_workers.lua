-- A slice of the audit: of each worker, what is free is its capacity less its attempts.
--
-- ARGV     number, names
-- Reply    { violations, workers looked at: as many as one call may, with their attempts }

local violations = {}
local function violation(text) violations[#violations + 1] = text end

local function check_worker(worker, record)
  local cpu, memory, slots, gpus = record[14], record[15], record[16], {}
  for i = 1, record[17] do gpus[i] = 1000 end
  for _, cid in ipairs(call('SMEMBERS', P .. 'attempts:' .. worker)) do
    local raw = call('HGET', P .. 'live:' .. group_of(cid), sub(cid, 15))
    local live = raw and unpacked(raw)
    if not live or live[1] ~= BOUND or live[7] ~= worker then
      return violation('law 9: worker ' .. worker .. ' reserves for ' .. cid .. ', which is not bound')
    end
    local rules = unpacked(call('HGET', P .. 'rules', live[3]))
    cpu, memory, slots = cpu - rules[1], memory - rules[2], slots - 1
    for i = 1, #live[10], 2 do
      local device = live[10][i] + 1
      gpus[device] = (gpus[device] or 0) - live[10][i + 1]
    end
  end
  if record[29] ~= call('SCARD', P .. 'attempts:' .. worker) then
    violation('law 8: worker ' .. worker .. ' counts its attempts wrong')
  end
  local least = min(cpu, memory, slots)
  for _, free in ipairs(gpus) do least = min(least, free) end
  if least < 0 then violation('law 1: the containers of worker ' .. worker .. ' exceed its capacity') end
  local same = cpu == record[10] and memory == record[11] and slots == record[12] and #gpus == #record[13]
  for i, free in ipairs(gpus) do same = same and free == record[13][i] end
  if not same then violation('law 2: what worker ' .. worker .. ' says is free is not what its containers leave') end
  if not call('ZSCORE', P .. 'leases', worker) then violation('law 11: the lease of worker ' .. worker .. ' never ends') end
  if not call('ZSCORE', P .. 'feed', 'w:' .. worker) then violation('change feed: worker ' .. worker .. ' is missing') end
end

local looked_at, work = 0, 0
for _ = 1, number() do
  if work >= OPT.script_items_max then break end
  local worker = arg()
  local record = call('HGET', P .. 'workers', worker)
  if record then
    record = unpacked(record)
    check_worker(worker, record)
    work = work + record[29]
  end
  looked_at, work = looked_at + 1, work + 1
end
return { violations, looked_at }
