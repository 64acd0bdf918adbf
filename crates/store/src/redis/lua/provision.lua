-- Writes the records of machines to be made. Each is checked alone.
--
-- ARGV     session, term, number, for each: worker, pool, version of the pool planned against
-- Reply    { 'ended' } or { 'not_leading', session, term, until } or { 'ok', verdicts (flat: word, number) }

local refused = refusal(arg(), number())
if refused then return done(refused) end

local function provision(worker, name, version)
  local machine = machine_get(worker)
  if machine then return machine[G.pool] == name and 'ok' or 'taken', 0 end
  if worker_get(worker) then return 'taken', 0 end
  local pool = pool_get(name)
  if not pool or pool[O.maker] == '' then return 'none', 0 end
  if pool[O.version] ~= version then return 'changed', 0 end
  local machines, in_flight = machines_of(name)
  if machines >= pool[O.max] then return 'max', pool[O.max] end
  if in_flight >= pool[O.in_flight_max] then return 'in_flight', pool[O.in_flight_max] end
  local known, standing = standing_get(name), standing_of(name)
  local new_minute = m.now - standing[N.minute] >= 60000
  if known then
    if standing[N.retry_at] > m.now then return 'waits', standing[N.retry_at] end
    if standing[N.quarantined] and in_flight > 0 then return 'in_flight', 1 end
    local left = pool[O.per_minute_max]
    if not new_minute then left = left - standing[N.bought] end
    if left <= 0 then return 'minute', pool[O.per_minute_max] end
  end
  if new_minute then standing[N.minute], standing[N.bought] = m.now, 0 end
  standing[N.bought] = standing[N.bought] + 1
  standing_put(name, standing)
  machine_put(worker, { name, version, pool[O.machine], pool[O.cost], m.now, m.now + pool[O.boot_limit], '', 'requested',
    0, '', pool[O.boot_limit_text], pool[O.cpu], pool[O.memory], pool[O.slots], pool[O.gpus] })
  count_machines(name, 1, 1)
  event('w', worker, 'provisioning')
  return 'ok', 0
end

local verdicts = {}
for _ = 1, number() do
  local worker, name, version = arg(), arg(), number()
  local word, what = provision(worker, name, version)
  verdicts[#verdicts + 1] = word
  verdicts[#verdicts + 1] = what
end
return done({ 'ok', verdicts })
