-- What provisioners answered. Each is noted alone.
--
-- ARGV     session, term, chance in thousandths, number, for each: worker, 'created' or 'failed' or 'destroyed', handle
--          or reason
-- Reply    { 'ended' } or { 'not_leading', session, term, until } or { 'ok', whether each was noted }

local refused = refusal(arg(), number())
if refused then return done(refused) end
local jitter = number()

-- A machine is destroyed, or never was: its record goes, and its worker with what it still held.
local function forget_machine(id, machine)
  count_machines(machine[G.pool], -1, is_in_flight(machine) and -1 or 0)
  machine_put(id, false)
  local record = worker_get(id)
  if record then end_worker(id, record) else event('w', id, 'gone') end
end

local function note(id, said, text)
  local machine = machine_get(id)
  if not machine then return 0 end
  if said == 'created' then
    machine[G.handle] = '=' .. text
    if machine[G.stage] == 'requested' then machine[G.stage] = 'booting' end
    machine_put(id, machine)
  elseif said == 'failed' and is_in_flight(machine) then
    count_failure(machine, text, jitter)
    forget_machine(id, machine)
  elseif said == 'destroyed' and machine[G.stage] == 'destroying' then
    forget_machine(id, machine)
  else
    return 0
  end
  return 1
end

local noted = {}
for i = 1, number() do
  local id, said, text = arg(), arg(), arg()
  noted[i] = note(id, said, text)
end
return done({ 'ok', noted })
