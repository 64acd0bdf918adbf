-- The change feed: one entry for each worker (`w:`), pool (`p:`) and blocked shape (`s:`), scored
-- by its last version. A removed record leaves a tombstone; purging tombstones raises a floor.

local FEED, touch = P .. 'feed', nil
do
  local TOMBSTONES = P .. 'tombstones'
  local pending, tombstones = {}, nil

  touch = function(key, removed)
    m.version = m.version + 1
    tombstones = tombstones or call('ZCARD', TOMBSTONES)
    if not removed then
      if tombstones > 0 then tombstones = tombstones - call('ZREM', TOMBSTONES, key) end
      pending[key] = m.version
      return m.version
    end
    pending[key] = nil
    call('ZADD', FEED, m.version, key)
    tombstones = tombstones + call('ZADD', TOMBSTONES, m.version, key)
    while tombstones > OPT.tombstones_max do
      local oldest = call('ZPOPMIN', TOMBSTONES)
      call('ZREM', FEED, oldest[1])
      m.floor = max(m.floor, tonumber(oldest[2]))
      tombstones = tombstones - 1
    end
    return m.version
  end

  savers[#savers + 1] = function()
    for key, version in pairs(pending) do later('ZADD', FEED, version, key) end
    pending = {}
  end
end

local function touch_worker(worker) touch('w:' .. worker) end
-- A worker has more room than before: blocked shapes are to be looked at again.
local function grow_worker(worker) m.growth = touch('w:' .. worker) end
