-- Accepts a group of containers whole, or gives the one that the same client key made before.
--
-- ARGV     group, tenant, key ('' for none), digest, name ('' or '=name'), labels (JSON),
--          number of specs, for each: hash, body (JSON), rules (packed),
--          number of shapes, for each: hash, body (JSON),
--          number of runs, for each: spec (place in the list), shape (place), count, rank of its priority
-- Reply    { 'ok', group, count, repeated } or { 'backlog', waiting, asked } or { 'reused', group } or { 'taken' } or
--          { 'tenant_backlog', waiting, limit, asked } or { 'rate', containers per second, wait }

local group, tenant, key, digest, name, labels = arg(), arg(), arg(), arg(), arg(), arg()
local specs, shapes, runs, count = {}, {}, {}, 0
for i = 1, number() do specs[i] = { arg(), arg(), arg() } end
for i = 1, number() do shapes[i] = { arg(), arg() } end
for i = 1, number() do
  runs[i] = { specs[number()], shapes[number()], number(), number() }
  count = count + runs[i][3]
end

local KEYS_KEPT, key_field = P .. 'keys', tenant .. ' ' .. key
if key ~= '' then
  local known = call('HGET', KEYS_KEPT, key_field)
  if known then
    known = unpacked(known)
    if known[3] ~= digest then return done({ 'reused', known[1] }) end
    return done({ 'ok', known[1], known[2], 1 })
  end
end
if call('EXISTS', P .. 'group:' .. group) == 1 then return done({ 'taken' }) end
local waiting = m.waiting + call('ZCARD', DELAYED) + m.claimed
if waiting + count > OPT.backlog_max then return done({ 'backlog', waiting, count }) end

-- Whether the tenant may submit so many now; if so, they are taken from its bucket, in thousandths.
local limits = limits_get(tenant)
if limits then
  local of_tenant = tonumber(call('HGET', P .. 'tenant_waiting', tenant) or 0)
  if limits[T.backlog_max] >= 0 and of_tenant + count > limits[T.backlog_max] then
    return done({ 'tenant_backlog', of_tenant, limits[T.backlog_max], count })
  end
  if limits[T.per_second] > 0 then
    local level = limits[T.level] + max(m.now - limits[T.at], 0) * limits[T.per_second]
    limits[T.level] = min(level, limits[T.burst] * 1000)
    limits[T.at] = max(m.now, limits[T.at])
    limits_put(tenant, limits)
    local short = max(min(count, limits[T.burst]) * 1000 - limits[T.level], 0)
    local wait = math.ceil(short / limits[T.per_second])
    if wait > 0 then return done({ 'rate', limits[T.per_second], wait }) end
    limits[T.level] = limits[T.level] - count * 1000
  end
end

if key ~= '' then
  local kept_until = m.now + OPT.key_retention
  call('ZADD', P .. 'keys_until', kept_until, key_field)
  call('HSET', KEYS_KEPT, key_field, pack({ group, count, digest, kept_until }))
end
local arrival = m.next_arrival
m.next_arrival = arrival + 1
local uses = {}
for _, run in ipairs(runs) do uses[run[1]] = (uses[run[1]] or 0) + 1 end
for spec, count_of_spec in pairs(uses) do
  if call('HINCRBY', P .. 'spec_uses', spec[1], count_of_spec) == count_of_spec then
    call('HSET', P .. 'specs', spec[1], spec[2])
    call('HSET', P .. 'rules', spec[1], spec[3])
  end
end
local start = 0
for i, run in ipairs(runs) do
  local spec, shape = run[1], run[2]
  add_users(shape[1], 1, shape[2], tenant)
  -- The one place where the order of all that waits is computed: priority, then arrival. Below 2^53.
  local score = run[4] * 2 ^ 45 + arrival
  run[5] = { spec[1], shape[1], score, start, run[3], start }
  run_put(run_id(group, i - 1), run[5])
  start = start + run[3]
end
call('HSET', P .. 'group:' .. group, 'arrival', arrival, 'tenant', tenant, 'name', name, 'labels', labels,
  'submitted_at', m.now, 'count', count, 'runs', #runs, 'finished', 0, 'succeeded', 0, 'pruned', 0)
call('ZADD', P .. 'arrivals', arrival, group)
call('ZADD', P .. 'groups', 0, group)
m.accepted = m.accepted + count
wait_more(runs[1][2][1], count)
event('g', group, tenant, count)
for i, asked_run in ipairs(runs) do
  local run = asked_run[5]
  local deadline = deadline_of(run[R.spec], m.now)
  if deadline then
    later('ZADD', EXPIRING, deadline, format('0:%s-%010d', group, i - 1))
    due_at(deadline)
  end
  if push(run[R.shape], run[R.score], container(group, run[R.start]) .. ':' .. i - 1, run[R.count]) then
    out.ready = out.ready + run[R.count]
  end
end
for _, shape in ipairs(shapes) do
  if shape_get(shape[1]) then tell_blocked(shape[1]) end
end
return done({ 'ok', group, count, 0 })
