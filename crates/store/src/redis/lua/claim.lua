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
local claimed, taken = {}, 0
while taken < count do
  local best = call('ZRANGE', HEADS, 0, 1, 'WITHSCORES')
  if not best[1] then break end
  local shape, want = sub(best[1], 12), count - taken
  -- Within one group other shapes may take turns by index.
  if best[3] and tonumber(best[4]) == tonumber(best[2]) then
    want = min(want, tonumber(sub(best[3], 1, 10)) - tonumber(sub(best[1], 1, 10)))
  end
  local first = head(shape)
  taken = taken + claim_entry(shape, first[1], first[2], want, session, claim, claimed)
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
