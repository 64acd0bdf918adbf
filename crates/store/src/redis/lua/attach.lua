-- A worker opens a stream on a server: registration, inventory and epoch in one.
--
-- ARGV     session, stream, the stream it replaces or '', epoch (number, nonce; 0 for none), nonce of a new epoch,
--          worker, pool, static part (JSON), capacity (JSON), cpu, memory, slots, number of devices,
--          the pool's record if it is not known (see pool.lua),
--          number of items, for each: container, attempt (number, nonce), progress, outcome (JSON), how it ended,
--          number of affinity keys that it comes with, the best last
-- Reply    { 'ended' } or { 'full' } or { 'in_use' } or { 'superseded' } or { 'ok', epoch, nonce, status, verdicts (1 keep, 0 kill) }

local session, stream, replaces, epoch, epoch_nonce, new_nonce = arg(), arg(), arg(), number(), arg(), arg()
local worker, pool, static, capacity = arg(), arg(), arg(), arg()
local cpu, memory, slots, gpus, pool_record = number(), number(), number(), number(), pool_arg()
local items = {}
for i = 1, number() do items[i] = { arg(), number(), arg(), arg(), arg(), arg() } end
-- Not one more local: a script may have 200.
items.affinities = {}
for i = 1, number() do items.affinities[i] = arg() end

if not renew_session(session) then return done({ 'ended' }) end

-- Whether an item is an attempt that is bound to the worker: nobody else knows its nonce.
local function held(item)
  local record = live_get(item[1])
  return record and record[L.state] == BOUND and record[L.worker] == worker and record[L.attempts] == item[2]
    and record[L.nonce] == item[3] and record
end

do
  local machine = machine_get(worker)
  if machine and machine[G.pool] ~= pool then return done({ 'in_use' }) end
end
local record = worker_get(worker)
-- Whether it says an epoch that it was given: the present one, or the one before when no reply has reached it. One that
-- forgot its epoch may have forgotten what it started.
local names_epoch = record and epoch > 0
  and ((epoch == record[W.epoch] and epoch_nonce == record[W.epoch_nonce])
    or (epoch == record[W.previous] and epoch_nonce == record[W.previous_nonce]))
-- The same call again, because its reply was lost.
local repeated = record and record[W.session] == session and record[W.stream] == stream
if not record then
  if replaces ~= '' then return done({ 'superseded' }) end
  if call('HLEN', P .. 'workers') >= OPT.workers_max then return done({ 'full' }) end
elseif not repeated and record[W.stream] ~= replaces then
  return done({ 'superseded' })
elseif record[W.lost_at] < 0 and record[W.session] ~= '' and record[W.lease_until] > m.now then
  local same_machine = repeated or names_epoch
  for _, item in ipairs(items) do same_machine = same_machine or held(item) end
  if not same_machine then return done({ 'in_use' }) end
end

local known = record
if not known then
  local free = {}
  for i = 1, gpus do free[i] = GPU_WHOLE end
  record = { pool, 1, new_nonce, 0, '', 1, 'ready', -1, -1, cpu, memory, slots, free, cpu, memory, slots, gpus, false,
    {}, false, '', '', m.now, 0, 0, m.now, '', {}, 0 }
  call('ZADD', LEASES, m.now, worker)
  call('HINCRBY', P .. 'pool_sizes', pool, 1)
  call('HSET', P .. 'worker_statics', worker, static)
  call('HSET', P .. 'worker_capacities', worker, capacity)
elseif not repeated then
  local named = epoch > 0
  if not (named and epoch == record[W.epoch] and epoch_nonce == record[W.epoch_nonce]) or record[W.lost_at] >= 0 then
    -- The worker may go on naming the epoch it knows until a reply reaches it, however many are begun.
    if not (named and epoch == record[W.previous] and epoch_nonce == record[W.previous_nonce]) then
      record[W.previous], record[W.previous_nonce] = record[W.epoch], record[W.epoch_nonce]
    end
    record[W.epoch], record[W.epoch_nonce] = record[W.epoch] + 1, new_nonce
  end
  -- New capacity or labels. A capacity below what is reserved counts only when enough of that has ended
  -- (law 1); until then nothing new is let in.
  local changed = call('HGET', P .. 'worker_statics', worker) ~= static
  local free = free_of(worker, cpu, memory, slots, gpus)
  if free then
    changed = changed or call('HGET', P .. 'worker_capacities', worker) ~= capacity
    set_capacity(record, free, cpu, memory, slots, gpus)
    call('HSET', P .. 'worker_capacities', worker, capacity)
    record[W.wanted] = false
  else
    record[W.wanted] = { cpu, memory, slots, gpus, capacity }
  end
  if changed then
    call('HSET', P .. 'worker_statics', worker, static)
    record[W.revision] = record[W.revision] + 1
  end
  if record[W.pool] ~= pool then
    if call('HINCRBY', P .. 'pool_sizes', record[W.pool], -1) <= 0 then
      call('HDEL', P .. 'pool_sizes', record[W.pool])
    end
    call('HINCRBY', P .. 'pool_sizes', pool, 1)
    record[W.pool] = pool
  end
end
worker_put(worker, record)
if not pool_get(pool) then put_pool(pool, pool_record) end
machine_registered(worker, record, { cpu, memory, slots, gpus, capacity })
if not repeated then
  for _, key in ipairs(items.affinities) do remember_affinity(record, key) end
end
record[W.session], record[W.stream] = session, stream
local status
do
  local back = not known or record[W.lost_at] >= 0
  record[W.lost_at] = -1
  if back then record[W.idle_since] = m.now end
  status = status_of(record)
  renew_worker(worker, record)
  if back then event('w', worker, status) end
end

-- An attempt goes over to its worker's present epoch. Its reservation stays.
local function rebind(cid, bound)
  if bound[L.epoch] ~= record[W.epoch] or bound[L.epoch_nonce] ~= record[W.epoch_nonce] then
    bound[L.epoch], bound[L.epoch_nonce] = record[W.epoch], record[W.epoch_nonce]
    live_put(cid, bound)
  end
end

local verdicts, named = {}, {}
for i, item in ipairs(items) do
  local bound = held(item)
  if bound then
    rebind(item[1], bound)
    named[item[1]] = true
    progress(item[1], bound, item[4], item[5], item[6])
  end
  verdicts[i] = bound and 1 or 0
end
-- What it should hold and does not. A repeated call says nothing about what it took over since.
if not repeated then
  for _, cid in ipairs(attempts_of(worker)) do
    if not named[cid] then
      local bound = live_get(cid)
      rebind(cid, bound)
      -- What was never accepted is handed out again. What is to stop needs no start: it ends here.
      if bound[L.phase] ~= ASSIGNED or bound[L.stop] ~= '' or (known and not names_epoch) then
        end_attempt(cid, bound, OUTCOME_LOST, 'l')
      end
    end
  end
end
grow_worker(worker)
flush()
if call('EXISTS', outbox_key(worker)) == 1 then out.outbox[worker] = true end
return done({ 'ok', record[W.epoch], record[W.epoch_nonce], status, verdicts })
