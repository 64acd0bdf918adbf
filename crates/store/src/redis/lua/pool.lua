-- Pools, bought machines, and how pools do with their provisioners.

-- A pool: version, record (JSON), kind of its provisioner ('': its workers come by themselves), definition of one
-- machine (JSON), what that costs, limits, and what the machine offers.
local O = {
  version = 1, body = 2, maker = 3, machine = 4, cost = 5, max = 6, in_flight_max = 7, per_minute_max = 8,
  boot_limit = 9, boot_limit_text = 10, cpu = 11, memory = 12, slots = 13, gpus = 14,
}
local pool_get, pool_put = records(in_key('pools'), same)

-- A pool's record from arguments.
local function pool_arg()
  local pool = { 0 }
  for i = O.body, O.cost do pool[i] = arg() end
  for i = O.max, O.boot_limit do pool[i] = number() end
  pool[O.boot_limit_text] = arg()
  for i = O.cpu, O.gpus do pool[i] = number() end
  return pool
end

-- Writes a pool's record under a new version.
local function put_pool(name, pool)
  m.growth = touch('p:' .. name)
  pool[O.version] = m.growth
  event('p', name, 0)
  pool_put(name, pool)
end

-- A bought machine: pool, its version, definition (JSON), cost, when bought, when it must have registered, name that
-- its provisioner gave it ('' or '=name'), stage, since when and why, limit in words, and what it should offer.
local G = {
  pool = 1, version = 2, machine = 3, cost = 4, requested_at = 5, boot_until = 6, handle = 7, stage = 8, since = 9,
  why = 10, boot_limit_text = 11, cpu = 12, memory = 13, slots = 14, gpus = 15,
}
local machine_get, machine_put = records(in_key('machines'), same)

-- Machines of a pool that are not destroyed, and how many of them have not registered.
local function machines_of(pool)
  return tonumber(call('HGET', P .. 'pool_machines', pool) or 0), tonumber(call('HGET', P .. 'pool_in_flight', pool) or 0)
end

local function count_machines(pool, machines, in_flight)
  if call('HINCRBY', P .. 'pool_machines', pool, machines) <= 0 then call('HDEL', P .. 'pool_machines', pool) end
  if call('HINCRBY', P .. 'pool_in_flight', pool, in_flight) <= 0 then call('HDEL', P .. 'pool_in_flight', pool) end
end

local function is_in_flight(machine) return machine[G.stage] == 'requested' or machine[G.stage] == 'booting' end

local function set_stage(id, machine, stage, since, why)
  local flew = is_in_flight(machine)
  machine[G.stage], machine[G.since], machine[G.why] = stage, since, why
  if flew and not is_in_flight(machine) then count_machines(machine[G.pool], 0, -1) end
  machine_put(id, machine)
end

-- How a pool does: failures in a row, when counted last, the last in words ('' or '=words'), when to try again,
-- quarantined, learnt boot time (-1: none), what its last machine offered if less ('' or JSON), the minute and
-- purchases in it.
local N = {
  failures = 1, failed_at = 2, last_failure = 3, retry_at = 4, quarantined = 5, boot_time = 6, offered = 7, minute = 8,
  bought = 9,
}
local standing_get, standing_put = records(in_key('standings'), same)
local function standing_of(pool) return standing_get(pool) or { 0, 0, '', 0, false, -1, '', 0, 0 } end

-- One in so many of the learnt boot time is the latest: a few boots shape it, one does not.
local BOOTS_AVERAGED = 4

-- A worker registered: the machine that was to become it has come. What was given up takes nothing new.
local function machine_registered(worker, record, capacity)
  local machine = machine_get(worker)
  if not machine or machine[G.stage] == 'registered' then return end
  if not is_in_flight(machine) then
    if record[W.admin] ~= 'draining' then
      record[W.admin] = 'draining'
      record[W.revision] = record[W.revision] + 1
      worker_put(worker, record)
    end
    return
  end
  set_stage(worker, machine, 'registered', m.now, '')
  local standing, boot = standing_of(machine[G.pool]), m.now - machine[G.requested_at]
  local old = standing[N.boot_time]
  if old < 0 then
    standing[N.boot_time] = boot
  else
    standing[N.boot_time] = old + math.floor(boot / BOOTS_AVERAGED) - math.floor(old / BOOTS_AVERAGED)
  end
  standing[N.failures], standing[N.quarantined], standing[N.retry_at] = 0, false, 0
  local less = capacity[1] < machine[G.cpu] or capacity[2] < machine[G.memory] or capacity[3] < machine[G.slots]
    or capacity[4] < machine[G.gpus]
  standing[N.offered] = less and capacity[5] or ''
  standing_put(machine[G.pool], standing)
end
