-- What every script that writes begins with: the cell's numbers, arguments, records by id with
-- one write each, events, and the end that writes them all. Knows no operation.
--
-- KEYS[1]  the cell's `meta`; all other keys have its prefix and hash tag
-- ARGV[1]  the time in milliseconds in a test, '' for the server's own

local call, pack, unpacked = redis.call, cmsgpack.pack, cmsgpack.unpack
local sub, format, concat, min, max = string.sub, string.format, table.concat, math.min, math.max
local P = sub(KEYS[1], 1, -5)

local META = { 'now', 'accepted', 'finished', 'pruned', 'next_arrival', 'version', 'last_event', 'growth', 'last_sweep',
  'events_floor', 'event_mark', 'ready', 'waiting', 'claimed', 'assigned', 'starting', 'running', 'stopping', 'floor',
  'moves', 'lead_term', 'lead_until', 'sweep_until' }
local m, before = {}, {}
do
  local values = call('HMGET', KEYS[1], unpack(META))
  for i, name in ipairs(META) do
    m[name] = tonumber(values[i] or 0)
    before[name] = m[name]
  end
  m.events_floor = max(m.events_floor, 1)
end

local next_arg = 1
local function arg()
  next_arg = next_arg + 1
  return ARGV[next_arg - 1]
end
local function number() return tonumber(arg()) end

do
  local given = arg()
  local now = tonumber(given)
  if not now then
    local time = call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  -- Time never runs backwards.
  m.now = max(m.now, now)
end

-- Ids of containers are `group-index` with the index in ten digits, so that they sort as pairs do.
local function container(group, index) return format('%s-%010d', group, index) end
local function group_of(cid) return sub(cid, 1, 13) end
local function index_of(cid) return tonumber(sub(cid, 15, 24)) end

-- Lua's stack bounds the arguments of one call.
local ARGS_MAX, FIELDS_MAX = 2000, 1000

local later, flush
do
-- Writes that may wait for the end of the script, as one call for each key.
  local batches, batch_of = {}, {}
  later = function(command, key, a, b)
    local of_command = batch_of[command]
    if not of_command then
      of_command = {}
      batch_of[command] = of_command
    end
    local batch = of_command[key]
    if not batch then
      batch = { command, key }
      of_command[key] = batch
      batches[#batches + 1] = batch
    end
    local n = #batch
    batch[n + 1] = a
    if b ~= nil then batch[n + 2] = b end
  end

  flush = function()
    for _, batch in ipairs(batches) do
      if #batch <= ARGS_MAX then
        call(unpack(batch))
      else
        for from = 3, #batch, ARGS_MAX do
          call(batch[1], batch[2], unpack(batch, from, min(from + ARGS_MAX - 1, #batch)))
        end
      end
    end
    batches, batch_of = {}, {}
  end
end

-- What writes at the end: all of `savers`, then what waits for later, then all of `settlers`.
local savers, settlers = {}, {}

-- Records kept in hashes: read once, written once. `false` is one that is not there.
local function records(key_of, field_of)
  local known, dirty = {}, {}
  local function get(id)
    local record = known[id]
    if record == nil then
      local raw = call('HGET', key_of(id), field_of(id))
      record = raw and unpacked(raw) or false
      known[id] = record
    end
    return record
  end
  local function put(id, record)
    known[id] = record
    dirty[id] = true
  end
  savers[#savers + 1] = function()
    for id in pairs(dirty) do
      local record = known[id]
      if record then
        later('HSET', key_of(id), field_of(id), pack(record))
      else
        later('HDEL', key_of(id), field_of(id))
      end
    end
    dirty = {}
  end
  -- Reads many at once, as one call for each key.
  local function load(ids)
    local of_key = {}
    for _, id in ipairs(ids) do
      if known[id] == nil then
        local key = key_of(id)
        local some = of_key[key]
        if not some then
          some = {}
          of_key[key] = some
        end
        some[#some + 1] = id
        known[id] = false
      end
    end
    for key, some in pairs(of_key) do
      for from = 1, #some, FIELDS_MAX do
        local fields, to = {}, min(from + FIELDS_MAX - 1, #some)
        for i = from, to do fields[#fields + 1] = field_of(some[i]) end
        local found = call('HMGET', key, unpack(fields))
        for i = from, to do
          local raw = found[i - from + 1]
          if raw then known[some[i]] = unpacked(raw) end
        end
      end
    end
  end
  return get, put, load
end

local function same(id) return id end
local function in_key(name)
  local key = P .. name
  return function() return key end
end

-- The key that has what is named by a group and more.
local function key_of_group(name)
  local known = {}
  return function(id)
    local group = sub(id, 1, 13)
    local key = known[group]
    if not key then
      key = P .. name .. group
      known[group] = key
    end
    return key
  end
end

-- A live container. What follows `score` depends on the state:
-- queued: ready_at; claimed: ready_at, session, claim; bound: all from `nonce` on.
local QUEUED, CLAIMED, BOUND = 0, 1, 2
local L = {
  state = 1, attempts = 2, spec = 3, shape = 4, score = 5, ready_at = 6, session = 7, claim = 8, nonce = 6,
  worker = 7, epoch = 8, epoch_nonce = 9, gpus = 10, phase = 11, assigned_at = 12, started_at = 13, stop = 14,
  grace = 15, outbox = 16,
}

local ASSIGNED, STARTING, RUNNING = 0, 1, 2
local live_get, live_put, live_load = records(
  key_of_group('live:'), function(cid) return sub(cid, 15) end)

local count_bound
do
  -- One more or less of those that have an attempt, by the state that the record says.
  local PHASES = { [ASSIGNED] = 'assigned', [STARTING] = 'starting', [RUNNING] = 'running' }
  count_bound = function(record, by)
    local state = record[L.stop] ~= '' and 'stopping' or PHASES[record[L.phase]]
    m[state] = m[state] + by
  end
end

-- A run of a group: `group:number`.
local R = {
  spec = 1, shape = 2, score = 3, start = 4, count = 5, next = 6,
}

local run_get, run_put, run_load = records(
  key_of_group('runs:'), function(id) return sub(id, 15) end)
local function run_id(group, run) return group .. ':' .. run end

-- What the rules need of a spec.
local S = {
  cpu = 1, memory = 2, gpus = 3, gpu_milli = 4, affinity = 5, retry = 6, attempts_max = 7, backoff = 8,
  backoff_max = 9, on = 10, max_wait = 11, fail = 12, keep = 13, grace = 14,
}

local rules_get = records(in_key('rules'), same)

local submitted_at
do
  local known = {}
  submitted_at = function(group)
    known[group] = known[group] or tonumber(call('HGET', P .. 'group:' .. group, 'submitted_at'))
    return known[group]
  end
end

local events = {}
local function event(...)
  m.last_event = m.last_event + 1
  events[#events + 1] = concat({ ... }, '|')
end

-- What listeners are told when all is written.
local out = { ready = 0, outbox = {}, due = nil }
local function due_at(at) out.due = out.due and min(out.due, at) or at end

local EVENTS_PER_ENTRY = 1000
local function write_events()
  local first = m.last_event - #events
  for from = 1, #events, EVENTS_PER_ENTRY do
    local to = min(from + EVENTS_PER_ENTRY - 1, #events)
    call('XADD', P .. 'events', format('%.0f-0', first + to), 'at', m.now, 'events', concat(events, '\n', from, to))
  end
  if m.last_event >= m.event_mark + EVENTS_PER_ENTRY then
    m.event_mark = m.last_event
    call('RPUSH', P .. 'event_times', format('%.0f %.0f', m.now, m.last_event))
  end
end

local function any_stale()
  local first = call('ZRANGE', P .. 'recheck', 0, 0, 'WITHSCORES')
  return first[1] and tonumber(first[2]) < m.growth
end

local function tell()
  local said = {}
  local ready = min(out.ready, m.ready)
  if ready > 0 or any_stale() then said[#said + 1] = format('r%.0f', ready) end
  local workers = {}
  for worker in pairs(out.outbox) do workers[#workers + 1] = worker end
  if #workers > 0 then said[#said + 1] = 'o' .. concat(workers, ',') end
  if #events > 0 then said[#said + 1] = format('e%.0f', m.last_event) end
  if out.due then said[#said + 1] = format('d%.0f', out.due) end
  if #said > 0 then call('PUBLISH', P .. 'hints', concat(said, '\n')) end
end

local function write_meta()
  local changed = {}
  for _, name in ipairs(META) do
    if m[name] ~= before[name] then
      changed[#changed + 1] = name
      changed[#changed + 1] = m[name]
    end
  end
  if #changed > 0 then call('HSET', KEYS[1], unpack(changed)) end
end
