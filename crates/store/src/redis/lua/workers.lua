-- Some workers.
--
-- ARGV     number, names
-- Reply    flat, of those that there are: name, record (packed), static part, capacity (both JSON)

local reply = {}
for _ = 1, number() do
  local name = arg()
  local record = call('HGET', P .. 'workers', name)
  if record then
    local n = #reply
    reply[n + 1], reply[n + 2] = name, record
    reply[n + 3], reply[n + 4] =
      call('HGET', P .. 'worker_statics', name), call('HGET', P .. 'worker_capacities', name)
  end
end
return reply
