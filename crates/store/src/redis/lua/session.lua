-- Sessions: opened, renewed by every call, ended by close or sweep. An ended one is fenced for good.
-- `sessions` has the ends of their leases.

local SESSIONS = P .. 'sessions'
local function session_key(session) return P .. 'session:' .. session end

-- Renews a session's lease; false when it has ended.
local function renew_session(session)
  local lease = call('ZSCORE', SESSIONS, session)
  if not lease then return false end
  if tonumber(lease) < m.now + OPT.session_lease then call('ZADD', SESSIONS, m.now + OPT.session_lease, session) end
  return true
end

-- Ends a session: what it claimed goes back to the queues with its scores.
local function end_session(session)
  if not call('ZSCORE', SESSIONS, session) then return end
  local claimed = call('SMEMBERS', claimed_key(session))
  table.sort(claimed)
  for _, cid in ipairs(claimed) do unclaim(cid) end
  call('ZREM', SESSIONS, session)
  if m.lead_until > 0 and call('GET', P .. 'lead') == session then m.lead_until = 0 end
  hand_back(session)
  flush()
  call('DEL', session_key(session), claimed_key(session))
end
