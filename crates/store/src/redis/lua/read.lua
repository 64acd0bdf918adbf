-- What every script that only reads begins with. Knows the layouts of records (see base.lua), no writes.
--
-- KEYS[1]  the cell's `meta`; all other keys have its prefix and hash tag

local call, unpacked = redis.call, cmsgpack.unpack
local sub, format, min, max = string.sub, string.format, math.min, math.max
local P = sub(KEYS[1], 1, -5)

local next_arg = 1
local function arg()
  next_arg = next_arg + 1
  return ARGV[next_arg - 1]
end
local function number() return tonumber(arg()) end

local function container(group, index) return format('%s-%010d', group, index) end
local function group_of(cid) return sub(cid, 1, 13) end
local function index_of(cid) return tonumber(sub(cid, 15, 24)) end
local QUEUED, CLAIMED, BOUND = 0, 1, 2
local ASSIGNED, STARTING, RUNNING = 0, 1, 2

-- The name of a live container's state.
local function state_of(record)
  if record[1] == QUEUED then return 'queued' end
  if record[1] == CLAIMED then return 'claimed' end
  if record[14] ~= '' then return 'stopping' end
  return record[11] == ASSIGNED and 'assigned' or record[11] == STARTING and 'starting' or 'running'
end

-- Of specs that rows name, each body once.
local specs, specs_named = {}, {}
local function name_spec(hash)
  if specs_named[hash] then return end
  specs_named[hash] = true
  specs[#specs + 1] = hash
  specs[#specs + 1] = call('HGET', P .. 'specs', hash)
end

local runs_known = {}
local function run_of_group(group, run)
  local id = group .. ':' .. run
  runs_known[id] = runs_known[id] or unpacked(call('HGET', P .. 'runs:' .. group, run))
  return runs_known[id]
end

-- The run that holds an index: the last that starts at or before it.
local function run_at(group, runs, index)
  local low, high = 0, runs - 1
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if run_of_group(group, middle)[4] <= index then low = middle else high = middle - 1 end
  end
  return low
end

-- Why containers of a shape wait: the reasons of its mark (JSON), or ''.
local function reasons_of(shape)
  local raw = call('HGET', P .. 'shapes', shape)
  local mark = raw and unpacked(raw)[4]
  return mark and mark[2] or ''
end
