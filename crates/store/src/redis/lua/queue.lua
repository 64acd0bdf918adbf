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

local heads = {}
-- The head of a shape's queue: { score, member }, or false.
local function head(shape)
  local known = heads[shape]
  if known == nil then
    local found = call('ZRANGE', P .. 'queue:' .. shape, 0, 0, 'WITHSCORES')
    known = found[1] and { tonumber(found[2]), found[1] } or false
    heads[shape] = known
  end
  return known
end

local function head_member(member, shape) return sub(member, 15, 24) .. ':' .. shape end

local function move_head(shape, old)
  local new = head(shape)
  if old and new and old[1] == new[1] and sub(old[2], 1, 24) == sub(new[2], 1, 24) then return end
  if old then call('ZREM', HEADS, head_member(old[2], shape)) end
  if new then call('ZADD', HEADS, new[1], head_member(new[2], shape)) end
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
  call('HDEL', P .. 'shape_bodies', shape)
  shape_put(shape, false)
  heads[shape] = nil
  if queue[Q.mark] then
    call('ZREM', RECHECK, shape)
    touch('s:' .. shape, true)
  end
end

-- How many more of each tenant wait (queued, delayed or claimed), written at the end.
local wait_grew = {}
local function wait_more(shape, by)
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

local function count_claimed(shape, by)
  local queue = shape_get(shape)
  queue[Q.claimed] = queue[Q.claimed] + by
  m.claimed = m.claimed + by
  shape_put(shape, queue)
end

-- Adds an entry; returns whether its shape is ready (not blocked).
local function push(shape, score, member, count)
  local queue = shape_get(shape)
  local old = head(shape)
  call('ZADD', P .. 'queue:' .. shape, score, member)
  if not old or score < old[1] or (score == old[1] and member < old[2]) then heads[shape] = { score, member } end
  queue[Q.waiting] = queue[Q.waiting] + count
  m.waiting = m.waiting + count
  shape_put(shape, queue)
  if queue[Q.mark] then return false end
  m.ready = m.ready + count
  move_head(shape, old)
  return true
end

local function take(shape, member, count)
  local queue = shape_get(shape)
  local old = head(shape)
  if call('ZREM', P .. 'queue:' .. shape, member) == 0 then error('law 11: ' .. member .. ' is not in its queue') end
  if old[2] == member then heads[shape] = nil end
  queue[Q.waiting] = queue[Q.waiting] - count
  m.waiting = m.waiting - count
  shape_put(shape, queue)
  if queue[Q.mark] then return end
  m.ready = m.ready - count
  move_head(shape, old)
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
  queue[Q.mark] = { at, reasons, queue[Q.waiting], first[1], at, '' }
  shape_put(shape, queue)
  if not old then
    m.ready = m.ready - queue[Q.waiting]
    call('ZREM', HEADS, head_member(first[2], shape))
  end
  call('ZADD', RECHECK, at, shape)
  return true
end

-- Removes a shape's mark, if it has one.
local function unblock(shape)
  local queue = shape_get(shape)
  if not queue or not queue[Q.mark] then return end
  queue[Q.mark] = false
  shape_put(shape, queue)
  call('ZREM', RECHECK, shape)
  m.ready = m.ready + queue[Q.waiting]
  local first = head(shape)
  if first then call('ZADD', HEADS, first[1], head_member(first[2], shape)) end
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
