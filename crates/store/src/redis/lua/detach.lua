-- A worker leaves by itself: its lease ends at once, and what it still held is lost.
--
-- ARGV     session, worker, stream
-- Reply    { whether it was this stream's to say }

local session, worker, stream = arg(), arg(), arg()
local record = worker_get(worker)
if not (record and record[W.lost_at] < 0 and record[W.session] == session and record[W.stream] == stream) then
  return done({ 0 })
end
lose_worker(worker, record)
return done({ 1 })
