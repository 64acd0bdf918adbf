-- Renews leases: of the session and of workers whose streams it holds.
--
-- ARGV     session, number of workers, for each: worker, stream, epoch (number, nonce)
-- Reply    { session is alive, renewed (1 or 0 each) }

local session = arg()
local alive = renew_session(session)
local renewed = {}
for i = 1, number() do
  local worker, stream, epoch, epoch_nonce = arg(), arg(), number(), arg()
  local record = worker_get(worker)
  local valid = record and record[W.lost_at] < 0 and record[W.epoch] == epoch and record[W.epoch_nonce] == epoch_nonce
    and record[W.session] == session and record[W.stream] == stream
  if valid then
    renew_worker(worker, record)
    -- It knows its epoch: whoever names the one before is another.
    record[W.previous], record[W.previous_nonce] = 0, ''
    worker_put(worker, record)
  end
  renewed[i] = valid and 1 or 0
end
return done({ alive and 1 or 0, renewed })
