-- The queues: one sorted set for each shape, by score, then index in the group (members begin with
-- the group, which the score decides, and the index). A member `container` is one container, a
-- member `container:run` is what is left of that run's range, beginning there.
-- `heads` has the head of each shape that is not blocked; `recheck` the blocked ones by the version
-- they were last looked at.

-- A shape: how many wait, are claimed, use it; its mark, or false; whose it is.
local Q = {
  waiting = 1, claimed = 2, users = 3, mark = 4, tenant = 5,
}

-- A mark: version planned against, reasons, count and best score as told (-1: none), version looked at, session.
local MARK = {
  at = 1, reasons = 2, count = 3, best = 4, looked_at = 5, handed_to = 6,
}

local shape_get, shape_put = records(in_key('shapes'), same)
local HEADS, RECHECK = P .. 'heads', P .. 'recheck'

local head, head_member, is_before, add_entry, remove_entry, note_head, write_heads
do
  -- Entries of queues that are known, from the head on: { score, member } each. `at` is the head's place; `whole` says
  -- that there are no others. What a script changes is seen here at once and written at its end, or before more is read.
  local LOOKAHEAD = 32
  local lists, changed = {}, {}

  local function changes_of(shape)
    local changes = changed[shape]
    if not changes then
      -- By member: its score, or false for one that leaves; and those that were there before.
      changes = { {}, {} }
      changed[shape] = changes
    end
    return changes[1], changes[2]
  end

  local function write_queue(shape)
    local changes = changed[shape]
    if not changes then return end
    changed[shape] = nil
    local key, come, gone = P .. 'queue:' .. shape, {}, {}
    for member, score in pairs(changes[1]) do
      if score then
        come[#come + 1] = score
        come[#come + 1] = member
      else
        gone[#gone + 1] = member
      end
    end
    for from = 1, #gone, ARGS_MAX do
      local to = min(from + ARGS_MAX - 1, #gone)
      if call('ZREM', key, unpack(gone, from, to)) ~= to - from + 1 then
        error('law 11: a container is not in its queue ' .. shape)
      end
    end
    for from = 1, #come, ARGS_MAX do call('ZADD', key, unpack(come, from, min(from + ARGS_MAX - 1, #come))) end
  end

  -- What entries are about: read with them, for who goes on to take them.
  local function load_entries(list)
    local containers, runs = {}, {}
    for i = 1, #list do
      local member = list[i][2]
      if #member == 24 then
        containers[#containers + 1] = member
      else
        runs[#runs + 1] = run_id(group_of(member), sub(member, 26))
      end
    end
    live_load(containers)
    run_load(runs)
  end

  -- The head of a shape's queue: { score, member }, or false. `taking`: more than it is going to be asked for.
  head = function(shape, taking)
    local list = lists[shape]
    if not list or (not list[list.at] and not list.whole) then
      write_queue(shape)
      -- Who only adds needs no more than the first one.
      local count = (list or taking) and LOOKAHEAD or 1
      local found = call('ZRANGE', P .. 'queue:' .. shape, 0, count - 1, 'WITHSCORES')
      list = { at = 1, whole = #found < count * 2 }
      for i = 1, #found, 2 do list[#list + 1] = { tonumber(found[i + 1]), found[i] } end
      if count > 1 then load_entries(list) end
      lists[shape] = list
    end
    return list[list.at] or false
  end

  is_before = function(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

  add_entry = function(shape, score, member)
    local first = head(shape)
    local list, entry = lists[shape], { score, member }
    changes_of(shape)[member] = score
    if not first then
      list[list.at] = entry
    elseif is_before(entry, first) then
      if list.at > 1 then
        list.at = list.at - 1
        list[list.at] = entry
      else
        table.insert(list, 1, entry)
      end
    else
      -- Behind what is known it is not known either; within, what follows is not known any more.
      for i = #list, list.at, -1 do
        if is_before(list[i], entry) then break end
        list[i] = nil
      end
      list.whole = false
    end
  end

  remove_entry = function(shape, member)
    local first = head(shape)
    local changes, before = changes_of(shape)
    if changes[member] == nil or before[member] then
      changes[member], before[member] = false, true
    else
      changes[member] = nil
    end
    local list = lists[shape]
    if first and first[2] == member then
      list.at = list.at + 1
      return
    end
    for i = list.at + 1, #list do
      if list[i][2] == member then
        table.remove(list, i)
        return
      end
    end
  end

  head_member = function(member, shape) return sub(member, 15, 24) .. ':' .. shape end

  -- Heads as they are written, of shapes that change.
  local heads_before = {}
  local function head_now(shape)
    local queue = shape_get(shape)
    return queue and not queue[Q.mark] and head(shape)
  end
  note_head = function(shape)
    if heads_before[shape] == nil then heads_before[shape] = head_now(shape) or false end
  end

  write_heads = function()
    for shape, old in pairs(heads_before) do
      local new = head_now(shape)
      local was = old and head_member(old[2], shape)
      local is = new and head_member(new[2], shape)
      -- Heads of two groups may have one index, and so one member: that one only gets another score.
      if was and was ~= is then later('ZREM', HEADS, was) end
      if is and (was ~= is or old[1] ~= new[1]) then later('ZADD', HEADS, new[1], is) end
    end
    heads_before = {}
  end
  savers[#savers + 1] = function()
    write_heads()
    for shape in pairs(changed) do write_queue(shape) end
  end
end

local function add_users(shape, users, body, tenant)
  local queue = shape_get(shape)
  if not queue then
    queue = { 0, 0, 0, false, tenant }
    call('HSET', P .. 'shape_bodies', shape, body)
  end
  queue[Q.users] = queue[Q.users] + users
  shape_put(shape, queue)
end

-- Fewer users of a shape: an unused one is forgotten, by the feed too.
local function forget_users(shape, users)
  local queue = shape_get(shape)
  queue[Q.users] = queue[Q.users] - users
  shape_put(shape, queue)
  if queue[Q.users] > 0 then return end
  note_head(shape)
  call('HDEL', P .. 'shape_bodies', shape)
  shape_put(shape, false)
  if queue[Q.mark] then
    call('ZREM', RECHECK, shape)
    touch('s:' .. shape, true)
  end
end

local wait_more
do
  -- How many more of each tenant wait (queued, delayed or claimed), written at the end.
  local wait_grew = {}
  wait_more = function(shape, by)
    local tenant = shape_get(shape)[Q.tenant]
    wait_grew[tenant] = (wait_grew[tenant] or 0) + by
  end
  settlers[#settlers + 1] = function()
    local key = P .. 'tenant_waiting'
    for tenant, by in pairs(wait_grew) do
      if by ~= 0 and call('HINCRBY', key, tenant, by) <= 0 then call('HDEL', key, tenant) end
    end
    wait_grew = {}
  end
end

local function count_claimed(shape, by)
  local queue = shape_get(shape)
  queue[Q.claimed] = queue[Q.claimed] + by
  m.claimed = m.claimed + by
  shape_put(shape, queue)
end

-- Adds an entry; returns whether its shape is ready (not blocked).
local function push(shape, score, member, count)
  local queue = shape_get(shape)
  note_head(shape)
  add_entry(shape, score, member)
  queue[Q.waiting] = queue[Q.waiting] + count
  m.waiting = m.waiting + count
  shape_put(shape, queue)
  if queue[Q.mark] then return false end
  m.ready = m.ready + count
  return true
end

local function take(shape, member, count)
  local queue = shape_get(shape)
  note_head(shape)
  remove_entry(shape, member)
  queue[Q.waiting] = queue[Q.waiting] - count
  m.waiting = m.waiting - count
  shape_put(shape, queue)
  if not queue[Q.mark] then m.ready = m.ready - count end
end

-- Up to here the feed tells the exact count of a blocked shape; above, a factor of two is enough.
local EXACT_COUNT_MAX = 16

-- Tells the feed of a blocked shape whose count or best score changed so much that a planner should know.
local function tell_blocked(shape)
  local queue = shape_get(shape)
  local mark = queue and queue[Q.mark]
  if not mark then return end
  local first = head(shape)
  local best, count, told = first and first[1] or -1, queue[Q.waiting], mark[MARK.count]
  local far = count > told * 2 or count < math.ceil(told / 2)
  if best ~= mark[MARK.best] or far or (count ~= told and count <= EXACT_COUNT_MAX) then
    mark[MARK.count], mark[MARK.best] = count, best
    shape_put(shape, queue)
    touch('s:' .. shape, best == -1)
  end
end

-- Marks a shape blocked, or renews its mark. False when it is unknown, nothing of it waits, or its mark is newer.
local function block(shape, at, reasons)
  local queue = shape_get(shape)
  local first = queue and head(shape)
  if not first then return false end
  local old = queue[Q.mark]
  if old and old[MARK.at] > at then return false end
  note_head(shape)
  queue[Q.mark] = { at, reasons, queue[Q.waiting], first[1], at, '' }
  shape_put(shape, queue)
  if not old then m.ready = m.ready - queue[Q.waiting] end
  call('ZADD', RECHECK, at, shape)
  return true
end

-- Removes a shape's mark, if it has one.
local function unblock(shape)
  local queue = shape_get(shape)
  if not queue or not queue[Q.mark] then return end
  note_head(shape)
  queue[Q.mark] = false
  shape_put(shape, queue)
  call('ZREM', RECHECK, shape)
  m.ready = m.ready + queue[Q.waiting]
  out.ready = out.ready + queue[Q.waiting]
  touch('s:' .. shape, true)
end

-- Hands out blocked shapes that nobody looked at since the last growth.
local function hand_out(session, count)
  if count == 0 then return {} end
  local stale = call('ZRANGE', RECHECK, '-inf', format('(%.0f', m.growth), 'BYSCORE', 'LIMIT', 0, count)
  for _, shape in ipairs(stale) do
    call('ZADD', RECHECK, m.growth, shape)
    local queue = shape_get(shape)
    queue[Q.mark][MARK.looked_at], queue[Q.mark][MARK.handed_to] = m.growth, session
    shape_put(shape, queue)
    later('SADD', P .. 'session:' .. session .. ':handed', shape)
  end
  return stale
end

-- A session ended: what was handed to it is handed out again.
local function hand_back(session)
  local key = P .. 'session:' .. session .. ':handed'
  for _, shape in ipairs(call('SMEMBERS', key)) do
    local queue = shape_get(shape)
    local mark = queue and queue[Q.mark]
    if mark and mark[MARK.handed_to] == session then
      mark[MARK.looked_at], mark[MARK.handed_to] = mark[MARK.at], ''
      shape_put(shape, queue)
      call('ZADD', RECHECK, mark[MARK.at], shape)
    end
  end
  call('DEL', key)
end
