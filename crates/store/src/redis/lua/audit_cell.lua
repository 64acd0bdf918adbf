-- The cell's own counts, for every slice of an audit.

-- { moves so far, accepted, finished, pruned, waiting, ready, claimed, assigned, starting, running, stopping, delayed,
--   finished listed }
local function audited_cell()
  local counts = call('HMGET', KEYS[1], 'moves', 'accepted', 'finished', 'pruned', 'waiting', 'ready', 'claimed',
    'assigned', 'starting', 'running', 'stopping')
  for i = 1, 11 do counts[i] = tonumber(counts[i] or 0) end
  counts[12], counts[13] = call('ZCARD', P .. 'delayed'), call('LLEN', P .. 'finished')
  return counts
end
