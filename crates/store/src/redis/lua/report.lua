-- Messages from workers, for all workers of a server at once, each judged alone.
--
-- ARGV     session, number of messages, for each: worker, epoch (number, nonce), container,
--          attempt (number, nonce), progress, outcome (JSON), how it ended
-- Reply    verdicts (1 keep, 0 kill)

renew_session(arg())
local verdicts, messages, containers, workers = {}, {}, {}, {}
for i = 1, number() do
  messages[i] = { arg(), number(), arg(), arg(), number(), arg(), arg(), arg(), arg() }
  workers[i], containers[i] = messages[i][1], messages[i][4]
end
live_load(containers)
worker_load(workers)
for i, message in ipairs(messages) do
  local worker, epoch, epoch_nonce, cid, attempt, nonce, kind, outcome, ended = unpack(message)
  local record = live_get(cid)
  if record and record[L.state] == BOUND and record[L.worker] == worker and record[L.attempts] == attempt
    and record[L.nonce] == nonce and record[L.epoch] == epoch and record[L.epoch_nonce] == epoch_nonce then
    progress(cid, record, kind, outcome, ended)
    verdicts[i] = 1
  else
    verdicts[i] = 0
  end
end
return done(verdicts)
