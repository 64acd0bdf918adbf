-- Does what time has made due: leases, expiries, retries, drains, holds, keys, pruning.
--
-- ARGV     session or '', items at most, time up to which leases are renewed after a gap (-1: none begun), leases seen
--          that stay
-- Reply    { 'renewing', time, leases that stay } when there are more leases to renew: call again with these; else
--          { sessions ended, workers lost, expired, ready, pruned, more, due (-1: nothing), work, now, left }

do
  -- While another server has the right to sweep, nothing is done. Its term is far below half of a lease, so that one that
  -- dies leaves no gap.
  local session = arg()
  if session ~= '' then
    local sweeper = call('GET', P .. 'sweeper')
    if sweeper and sweeper ~= session and m.sweep_until > m.now and call('ZSCORE', SESSIONS, sweeper) then
      return done({ 0, {}, 0, 0, 0, 0, m.sweep_until, 0, m.now, 1 })
    end
    if sweeper ~= session then call('SET', P .. 'sweeper', session) end
    m.sweep_until = m.now + max(math.floor(HALF_LEASE * 3 / 4), 1)
  end
end
local items_max, renewed_until, stay = min(max(number(), 1), OPT.script_items_max), number(), number()
-- A worker's attempts count too: what is left is the next call's.
local work = 0
local function is_full() return work >= OPT.script_items_max end
local sessions_ended, workers_lost, expired, pruned = 0, {}, 0, 0

-- After a gap in the clock or in sweeps, or a restart, all leases get one fresh term: an outage of the
-- control plane must not kill a healthy fleet. False when there are more than one call may renew; nothing else is done then.
local function forgive_gap()
  local last = m.last_sweep
  if renewed_until < 0 and last > 0 and m.now - last <= HALF_LEASE then
    m.last_sweep = m.now
    return true
  end
  if renewed_until < 0 then
    renewed_until = m.now + OPT.worker_lease
    for _, session in ipairs(call('ZRANGE', SESSIONS, 0, -1)) do
      call('ZADD', SESSIONS, 'GT', m.now + OPT.session_lease, session)
    end
  end
  local found = call('ZRANGE', LEASES, '-inf', format('(%.0f', renewed_until), 'BYSCORE', 'LIMIT', stay,
    OPT.script_items_max)
  for _, worker in ipairs(found) do
    local record = worker_get(worker)
    if record[W.lost_at] < 0 then set_lease(worker, record, renewed_until) else stay = stay + 1 end
  end
  if #found == OPT.script_items_max then return false end
  m.last_sweep = m.now
  return true
end

local function sweep_sessions()
  local ended = call('ZRANGE', SESSIONS, '-inf', m.now, 'BYSCORE')
  table.sort(ended)
  for _, session in ipairs(ended) do
    end_session(session)
    sessions_ended = sessions_ended + 1
  end
end

-- Leases that ended: a live worker is lost, one lost long ago is forgotten, an empty drained one is gone.
local function sweep_leases()
  for _ = 1, items_max do
    local due_worker = call('ZRANGE', LEASES, '-inf', m.now, 'BYSCORE', 'LIMIT', 0, 1)
    local worker = due_worker[1]
    if not worker then break end
    if is_full() then break end
    local record = worker_get(worker)
    work = work + 1 + record[W.attempts]
    if record[W.lost_at] >= 0 then
      forget_lost(worker, record, record[W.lost_at])
    elseif record[W.admin] == 'draining' and record[W.attempts] == 0 then
      remove_worker(worker, record)
    else
      lose_worker(worker, record)
      workers_lost[#workers_lost + 1] = worker
    end
  end
end

-- Ends up to `count` containers of a run's range. Returns how many.
local function expire_run(group, run, count)
  local record = run_get(run_id(group, run))
  local from = record[R.next]
  local past = min(record[R.start] + record[R.count], from + count)
  take_range(group, run, past)
  for index = from, past - 1 do
    local cid = container(group, index)
    finish(cid, live_get(cid), OUTCOME_EXPIRED, false)
  end
  expired = expired + past - from
  return past - from
end

local function sweep_expiring()
  local left = min(items_max, OPT.script_items_max - work)
  local budget = left
  while left > 0 do
    local found = call('ZRANGE', EXPIRING, '-inf', m.now, 'BYSCORE', 'LIMIT', 0, 1)
    if not found[1] then break end
    left = left - 1
    local id = sub(found[1], 3)
    if sub(found[1], 1, 1) == '1' then
      finish(id, live_get(id), OUTCOME_EXPIRED, false)
      expired = expired + 1
    else
      left = max(left - expire_run(group_of(id), index_of(id), max(left, 1)), 0)
    end
  end
  work = work + max(budget - left, 0)
end

-- A drain's deadline passed: what still runs is asked to stop.
local function sweep_drains()
  for _, worker in ipairs(call('ZRANGE', DRAINS, '-inf', m.now, 'BYSCORE', 'LIMIT', 0, OPT.script_items_max)) do
    if is_full() then break end
    call('ZREM', DRAINS, worker)
    local record = worker_get(worker)
    work = work + 1 + record[W.attempts]
    record[W.drain_until] = -1
    worker_put(worker, record)
    for _, cid in ipairs(attempts_of(worker)) do
      local bound = live_get(cid)
      ask_stop(cid, bound, 'drain', rules_get(bound[L.spec])[S.grace])
    end
  end
end

local function sweep_holds()
  for _, worker in ipairs(call('ZRANGE', HOLDS, 0, -1)) do
    local record = worker_get(worker)
    local hold = record[W.hold]
    local queue = shape_get(hold[1])
    if hold[3] <= m.now or not queue or (queue[Q.waiting] == 0 and queue[Q.claimed] == 0) then
      drop_hold(worker, record)
      grow_worker(worker)
    end
  end
end

local function sweep_keys()
  local ended = call('ZRANGE', P .. 'keys_until', '-inf', m.now, 'BYSCORE', 'LIMIT', 0, items_max)
  for _, key in ipairs(ended) do
    call('ZREM', P .. 'keys_until', key)
    call('HDEL', P .. 'keys', key)
  end
end

-- Tokens that ended long ago.
local function sweep_tokens()
  local ended = call('ZRANGE', P .. 'tokens_until', '-inf', m.now, 'BYSCORE', 'LIMIT', 0, items_max)
  for _, token in ipairs(ended) do forget_token(token) end
end

local function prunable()
  if m.finished > OPT.finished_containers_max then return true end
  local first = call('LINDEX', P .. 'finished', 0)
  return first and tonumber(string.match(first, '^%d+')) + OPT.finished_age_max <= m.now
end

local function remove_group(group)
  local key = P .. 'group:' .. group
  for run = 0, tonumber(call('HGET', key, 'runs')) - 1 do
    local spec = run_get(run_id(group, run))[R.spec]
    if call('HINCRBY', P .. 'spec_uses', spec, -1) <= 0 then
      call('HDEL', P .. 'spec_uses', spec)
      call('HDEL', P .. 'specs', spec)
      call('HDEL', P .. 'rules', spec)
    end
  end
  call('ZREM', P .. 'arrivals', group)
  call('ZREM', P .. 'groups', group)
  call('UNLINK', key, P .. 'runs:' .. group, P .. 'finished:' .. group)
end

local function prune()
  while pruned < items_max and prunable() do
    local cid = string.match(call('LPOP', P .. 'finished'), ' (.+)$')
    local group = group_of(cid)
    m.finished, m.pruned, pruned = m.finished - 1, m.pruned + 1, pruned + 1
    call('HDEL', P .. 'finished:' .. group, sub(cid, 15))
    local key = P .. 'group:' .. group
    if call('HINCRBY', key, 'pruned', 1) == tonumber(call('HGET', key, 'count')) then remove_group(group) end
  end
end

local function prune_events()
  local times, floor = P .. 'event_times', m.events_floor
  local kept = m.last_event - OPT.events_max
  if kept >= floor + EVENTS_PER_ENTRY then floor = kept + 1 end
  while true do
    local first = call('LINDEX', times, 0)
    if not first then break end
    local at, last = string.match(first, '^(%d+) (%d+)$')
    if not (tonumber(at) + OPT.events_age_max <= m.now or tonumber(last) < floor) then break end
    floor = max(floor, tonumber(last) + 1)
    call('LPOP', times)
  end
  if call('EXISTS', times) == 0 then m.event_mark = 0 end
  if floor > m.events_floor then
    m.events_floor = floor
    call('XTRIM', P .. 'events', 'MINID', format('%.0f-0', floor))
  end
end

if not forgive_gap() then return done({ 'renewing', renewed_until, stay }) end
sweep_sessions()
sweep_leases()
local ready = promote_due(items_max)
sweep_expiring()
sweep_drains()
sweep_holds()
sweep_keys()
sweep_tokens()
-- What finished now may be pruned now: it must be listed first.
save()
prune()
prune_events()
local next_due = due()
local keys = call('ZRANGE', P .. 'keys_until', '-inf', m.now, 'BYSCORE', 'LIMIT', 0, 1)
local tokens = call('ZRANGE', P .. 'tokens_until', '-inf', m.now, 'BYSCORE', 'LIMIT', 0, 1)
local more = keys[1] or tokens[1] or prunable() or (next_due >= 0 and next_due <= m.now)
local to_do = m.ready > 0 or any_stale()
return done({ sessions_ended, workers_lost, expired, ready, pruned, more and 1 or 0, next_due, to_do and 1 or 0, m.now,
  0 })
