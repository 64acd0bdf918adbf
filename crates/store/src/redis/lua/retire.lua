-- Gives machines up: those that run nothing are to be destroyed, others first drain. Each is checked alone.
--
-- ARGV     session, term, chance in thousandths, number, for each: worker, why
-- Reply    { 'ended' } or { 'not_leading', session, term, until } or { 'ok', whether each is given up }

local refused = refusal(arg(), number())
if refused then return done(refused) end
local jitter = number()

local function retire(id, why)
  local machine = machine_get(id)
  if not machine then return 0 end
  local record = worker_get(id)
  local busy = record and record[W.attempts] > 0
  local stage = machine[G.stage]
  if stage == 'destroying' then return 1 end
  if stage == 'requested' or stage == 'booting' then
    if why ~= 'boot_limit' then return 0 end
    count_failure(machine, id .. ' did not register within ' .. machine[G.boot_limit_text], jitter)
    stage = 'destroying'
  elseif stage == 'draining' then
    if busy then return 1 end
    stage, why = 'destroying', machine[G.why]
  else
    -- It registered in between, or something was placed on it, or room is held there.
    if why == 'boot_limit' or (why == 'idle' and (busy or (record and record[W.hold]))) then return 0 end
    stage = busy and 'draining' or 'destroying'
  end
  if record then set_schedulable(id, 'draining', -1) end
  set_stage(id, machine, stage, m.now, why)
  return 1
end

local given_up = {}
for i = 1, number() do
  local id, why = arg(), arg()
  given_up[i] = retire(id, why)
end
return done({ 'ok', given_up })
