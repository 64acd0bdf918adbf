-- The cell's counts at a glance.
--
-- Reply    { now, accepted, pruned, queued, claimed, assigned, starting, running, stopping, finished, sessions }

local m = call('HMGET', KEYS[1], 'now', 'accepted', 'pruned', 'waiting', 'claimed', 'assigned', 'starting', 'running',
  'stopping', 'finished')
for i = 1, #m do m[i] = tonumber(m[i] or 0) end
m[4] = m[4] + call('ZCARD', P .. 'delayed')
m[11] = call('ZCARD', P .. 'sessions')
return m
