-- Takes the heads of the queues, and what changed in the fleet.
--
-- ARGV     session, number, containers at most, version known, changes at most
-- Reply    { 'ended' } or { 'old' } or
--          { 'ok', claimed (flat: container, shape, score, since, fails if unplaceable), shapes (flat: hash, body),
--            fleet (see fleet.lua), recheck, sessions, ready, due (-1: nothing), now }

local session, claim, count, known, changes_max = arg(), number(), number(), number(), number()
if not renew_session(session) then return done({ 'ended' }) end
local last = tonumber(call('HGET', session_key(session), 'claim') or nil)
if last and last == claim then return done(unpacked(call('HGET', session_key(session), 'claim_reply'))) end
if last and last > claim then return done({ 'old' }) end

count = min(count, OPT.claim_containers_max)
promote_due(count)
write_heads()
flush()
-- The heads of shapes in a heap, best first: { score, index in its group, shape }. So many are enough: each is taken from
-- or not.
local heap, found = {}, call('ZRANGE', HEADS, 0, count, 'WITHSCORES')
for i = 1, #found, 2 do
  local member = found[i]
  heap[#heap + 1] = { tonumber(found[i + 1]), tonumber(sub(member, 1, 10)), sub(member, 12) }
end

local function is_better(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  if a[2] ~= b[2] then return a[2] < b[2] end
  return a[3] < b[3]
end

local function sift_down()
  local at, size, entry = 1, #heap, heap[1]
  while true do
    local least = at * 2
    if least > size then break end
    if least < size and is_better(heap[least + 1], heap[least]) then least = least + 1 end
    if not is_better(heap[least], entry) then break end
    heap[at], at = heap[least], least
  end
  heap[at] = entry
end

local function second_best()
  local left, right = heap[2], heap[3]
  return left and right and is_better(right, left) and right or left
end

local claimed, taken = {}, 0
while taken < count and heap[1] do
  local best, second = heap[1], second_best()
  local shape, want = best[3], count - taken
  -- Within one group other shapes may take turns by index.
  if second and second[1] == best[1] then want = min(want, second[2] - best[2]) end
  local first = head(shape, true)
  taken = taken + claim_entry(shape, first[1], first[2], want, session, claim, claimed)
  local new = head(shape)
  if new then
    best[1], best[2] = new[1], index_of(new[2])
  else
    heap[1] = heap[#heap]
    heap[#heap] = nil
  end
  if heap[1] then sift_down() end
end
local shapes, seen = {}, {}
for i = 2, #claimed, 5 do
  local shape = claimed[i]
  if not seen[shape] then
    seen[shape] = true
    shapes[#shapes + 1] = shape
    shapes[#shapes + 1] = call('HGET', P .. 'shape_bodies', shape)
  end
end
-- Who only asks for the fleet's changes does not plan: nothing is handed out to be looked at.
local recheck = hand_out(session, count == 0 and 0 or OPT.recheck_max)
save()
local reply = { 'ok', claimed, shapes, fleet_changes(known, not last, changes_max), recheck,
  call('ZRANGE', SESSIONS, 0, -1), m.ready, due(), m.now }
call('HSET', session_key(session), 'claim', claim, 'claim_reply', pack(reply))
return done(reply)
