-- Transitions of what waits: queued, delayed, claimed and back, and when the wait ends by itself.
-- `delayed` has queued containers whose time has not come, `expiring` the ends of `max_wait` of all
-- that is queued: `0:group-run` for what is left of a range, `1:container` for one container.

local DELAYED, EXPIRING = P .. 'delayed', P .. 'expiring'

-- When a container that is ready then has waited too long; nil for ever.
local function deadline_of(spec, ready_at)
  local wait = rules_get(spec)[S.max_wait]
  if wait >= 0 then return ready_at + wait end
end

local function push_ready(cid, record)
  if push(record[L.shape], record[L.score], cid, 1) then
    out.ready = out.ready + 1
  else
    tell_blocked(record[L.shape])
  end
end

-- Puts a queued container into its queue, or among the delayed.
local function enqueue(cid, record)
  local ready_at = record[L.ready_at]
  local deadline = deadline_of(record[L.spec], ready_at)
  if deadline then
    call('ZADD', EXPIRING, deadline, '1:' .. cid)
    due_at(deadline)
  end
  if ready_at > m.now then
    call('ZADD', DELAYED, ready_at, cid)
    due_at(ready_at)
  else
    push_ready(cid, record)
  end
end

-- Delayed containers whose time has come join their queues. At most `count`; returns how many.
local function promote_due(count)
  if count == 0 then return 0 end
  local due = call('ZRANGE', DELAYED, '-inf', m.now, 'BYSCORE', 'LIMIT', 0, count)
  for _, cid in ipairs(due) do
    call('ZREM', DELAYED, cid)
    push_ready(cid, live_get(cid))
  end
  return #due
end

-- A container that waited since `ready_at`, and is not live any more, leaves its queue or the delayed.
local function leave_queue(cid, record)
  if deadline_of(record[L.spec], 0) then call('ZREM', EXPIRING, '1:' .. cid) end
  if call('ZREM', DELAYED, cid) == 0 then
    take(record[L.shape], cid, 1)
    tell_blocked(record[L.shape])
  end
end

-- Gives the containers of a run below `past` records of their own, queued.
local function materialise(group, run, past, since)
  local id = run_id(group, run)
  local record = run_get(id)
  for index = record[R.next], past - 1 do
    live_put(container(group, index), { QUEUED, 0, record[R.spec], record[R.shape], record[R.score], since })
  end
  local users = max(past - record[R.next], 0)
  record[R.next] = max(record[R.next], past)
  run_put(id, record)
  add_users(record[R.shape], users)
  if record[R.next] == record[R.start] + record[R.count] and users > 0 then
    forget_users(record[R.shape], 1)
    if deadline_of(record[R.spec], 0) then call('ZREM', EXPIRING, format('0:%s-%010d', group, run)) end
  end
end

local function claimed_key(session) return P .. 'session:' .. session .. ':claimed' end

local function set_claimed(cid, session, claim, claimed, fresh)
  local record = live_get(cid)
  local ready_at = record[L.ready_at]
  record[L.state], record[L.session], record[L.claim] = CLAIMED, session, claim
  live_put(cid, record)
  local rules = rules_get(record[L.spec])
  local n = #claimed
  claimed[n + 1], claimed[n + 2], claimed[n + 3] = cid, record[L.shape], record[L.score]
  claimed[n + 4], claimed[n + 5] = ready_at, rules[S.fail] and 1 or 0
  -- One that comes from a range has no deadline of its own yet.
  if not fresh and rules[S.max_wait] >= 0 then call('ZREM', EXPIRING, '1:' .. cid) end
  count_claimed(record[L.shape], 1)
  later('SADD', claimed_key(session), cid)
end

-- The entry at a queue's head became claimed: the first `count` containers of it. Returns how many.
local function claim_entry(shape, score, member, count, session, claim, claimed)
  if #member == 24 then
    take(shape, member, 1)
    set_claimed(member, session, claim, claimed)
    tell_blocked(shape)
    return 1
  end
  local group, index, run = group_of(member), index_of(member), sub(member, 26)
  local record = run_get(run_id(group, run))
  local stop = record[R.start] + record[R.count]
  local past = min(stop, index + count)
  take(shape, member, stop - index)
  materialise(group, run, past, submitted_at(group))
  for i = index, past - 1 do set_claimed(container(group, i), session, claim, claimed, true) end
  if past < stop then push(shape, score, container(group, past) .. ':' .. run, stop - past) end
  tell_blocked(shape)
  return past - index
end

-- A claim on a container ended: it was placed, returned or finished.
local function drop_claim(cid, record)
  count_claimed(record[L.shape], -1)
  later('SREM', claimed_key(record[L.session]), cid)
end

-- A claimed container goes back to its queue with its score.
local function unclaim(cid)
  local record = live_get(cid)
  drop_claim(cid, record)
  record = { QUEUED, record[L.attempts], record[L.spec], record[L.shape], record[L.score], record[L.ready_at] }
  live_put(cid, record)
  enqueue(cid, record)
end

-- Gives the containers of a run's range below `past` queue entries of their own.
local function take_range(group, run, past)
  local record = run_get(run_id(group, run))
  local shape, score, from = record[R.shape], record[R.score], record[R.next]
  local stop = record[R.start] + record[R.count]
  if from >= past then return end
  local since = submitted_at(group)
  take(shape, container(group, from) .. ':' .. run, stop - from)
  -- The shape stays known while its range is out of the queue: the run counts as a user.
  add_users(shape, 1)
  materialise(group, run, past, since)
  if past < stop then push(shape, score, container(group, past) .. ':' .. run, stop - past) end
  local deadline = deadline_of(record[R.spec], since)
  for index = from, past - 1 do
    local cid = container(group, index)
    push(shape, score, cid, 1)
    if deadline then call('ZADD', EXPIRING, deadline, '1:' .. cid) end
  end
  forget_users(shape, 1)
  tell_blocked(shape)
end
