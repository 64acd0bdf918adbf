-- Workers: their records (`quarantine` is '' or why it was cordoned by itself, `failing` the specs that it could not
-- run since it last ran one), what is free of their capacity, leases and holds. A worker's attempts are
-- a set, its outbox a sorted set by delivery number, each under a key of its own.

local W = {
  pool = 1, epoch = 2, epoch_nonce = 3, previous = 4, previous_nonce = 5, revision = 6, admin = 7, lost_at = 8,
  drain_until = 9, cpu = 10, memory = 11, slots = 12, gpus = 13, all_cpu = 14, all_memory = 15, all_slots = 16,
  all_gpus = 17, wanted = 18, affinities = 19, hold = 20, session = 21, stream = 22, lease_until = 23,
  last_delivery = 24, finished = 25, idle_since = 26, quarantine = 27, failing = 28, attempts = 29,
}

local GPU_WHOLE = 1000
local worker_get, worker_put, worker_load = records(in_key('workers'), same)
local LEASES, DRAINS, HOLDS = P .. 'leases', P .. 'drains', P .. 'holds'

local function attempts_key(worker) return P .. 'attempts:' .. worker end
local function outbox_key(worker) return P .. 'outbox:' .. worker end

local function status_of(record) return record[W.lost_at] >= 0 and 'lost' or record[W.admin] end

-- The attempts of a worker, sorted.
local function attempts_of(worker)
  flush()
  local found = call('SMEMBERS', attempts_key(worker))
  table.sort(found)
  return found
end

-- Puts a message about a container at the end of the outbox.
local function post(worker, record, cid)
  record[W.last_delivery] = record[W.last_delivery] + 1
  later('ZADD', outbox_key(worker), record[W.last_delivery], cid)
  out.outbox[worker] = true
  return record[W.last_delivery]
end

-- `gpus` is a flat list of device and milli. Grants are what the rules ask, on devices that have so much free.
local function fits(record, rules, gpus)
  if record[W.slots] <= 0 or rules[S.cpu] > record[W.cpu] or rules[S.memory] > record[W.memory] then return false end
  if #gpus ~= rules[S.gpus] * 2 then return false end
  local last = -1
  for i = 1, #gpus, 2 do
    local device, milli = gpus[i], gpus[i + 1]
    local free = record[W.gpus][device + 1]
    if milli ~= rules[S.gpu_milli] or device <= last or not free or milli > free then return false end
    last = device
  end
  return true
end

local function reserve(record, rules, gpus)
  if not fits(record, rules, gpus) then return false end
  record[W.cpu] = record[W.cpu] - rules[S.cpu]
  record[W.memory] = record[W.memory] - rules[S.memory]
  record[W.slots] = record[W.slots] - 1
  for i = 1, #gpus, 2 do
    record[W.gpus][gpus[i] + 1] = record[W.gpus][gpus[i] + 1] - gpus[i + 1]
  end
  return true
end

local function give_back(record, rules, gpus)
  record[W.cpu] = record[W.cpu] + rules[S.cpu]
  record[W.memory] = record[W.memory] + rules[S.memory]
  record[W.slots] = record[W.slots] + 1
  if record[W.cpu] > record[W.all_cpu] or record[W.memory] > record[W.all_memory]
    or record[W.slots] > record[W.all_slots] then
    error('law 9: more would be free than there is')
  end
  for i = 1, #gpus, 2 do
    local free = record[W.gpus][gpus[i] + 1] + gpus[i + 1]
    if free > GPU_WHOLE then error('law 9: more of a device would be free than there is') end
    record[W.gpus][gpus[i] + 1] = free
  end
end

-- What a worker's attempts would leave of a capacity; nil when they exceed it.
local function free_of(worker, cpu, memory, slots, gpus)
  local free = {}
  free[W.cpu], free[W.memory], free[W.slots], free[W.gpus] = cpu, memory, slots, {}
  for i = 1, gpus do free[W.gpus][i] = GPU_WHOLE end
  for _, cid in ipairs(attempts_of(worker)) do
    local record = live_get(cid)
    if not reserve(free, rules_get(record[L.spec]), record[L.gpus]) then return nil end
  end
  return free
end

local function set_capacity(record, free, cpu, memory, slots, gpus)
  record[W.cpu], record[W.memory], record[W.slots], record[W.gpus] =
    free[W.cpu], free[W.memory], free[W.slots], free[W.gpus]
  record[W.all_cpu], record[W.all_memory], record[W.all_slots], record[W.all_gpus] = cpu, memory, slots, gpus
end

-- Takes over the capacity that a worker came back with, when its attempts leave room for it.
local function adopt_capacity(worker, record)
  local wanted = record[W.wanted]
  local free = free_of(worker, wanted[1], wanted[2], wanted[3], wanted[4])
  if not free then return end
  set_capacity(record, free, wanted[1], wanted[2], wanted[3], wanted[4])
  call('HSET', P .. 'worker_capacities', worker, wanted[5])
  record[W.wanted] = false
  record[W.revision] = record[W.revision] + 1
end

-- When a sweep looks at a worker next: its lease, or for a lost one the end of its listing.
local function set_lease(worker, record, at)
  if record[W.lease_until] ~= at then
    record[W.lease_until] = at
    worker_put(worker, record)
    call('ZADD', LEASES, at, worker)
  end
end

local function renew_worker(worker, record) set_lease(worker, record, m.now + OPT.worker_lease) end

-- Whether a hold on a worker ended; it is the caller's to say that there is room again.
local function drop_hold(worker, record)
  if not record[W.hold] then return false end
  call('ZREM', HOLDS, worker)
  call('HDEL', P .. 'held_shapes', record[W.hold][1])
  record[W.hold] = false
  worker_put(worker, record)
  return true
end

-- Forgets a worker that holds nothing.
local function remove_worker(worker, record)
  worker_put(worker, false)
  call('ZREM', LEASES, worker)
  call('ZREM', DRAINS, worker)
  if record[W.hold] then
    call('ZREM', HOLDS, worker)
    call('HDEL', P .. 'held_shapes', record[W.hold][1])
  end
  call('DEL', attempts_key(worker), outbox_key(worker))
  call('HDEL', P .. 'worker_statics', worker)
  call('HDEL', P .. 'worker_capacities', worker)
  if call('HINCRBY', P .. 'pool_sizes', record[W.pool], -1) <= 0 then call('HDEL', P .. 'pool_sizes', record[W.pool]) end
  -- No growth, but what only it could serve is to be looked at again: some of it may have to fail now.
  m.growth = touch('w:' .. worker, true)
  event('w', worker, 'gone')
end

