-- Takes or renews the right to buy and give up machines.
--
-- ARGV     session
-- Reply    { 'ended' } or { 'not_leading', session, term, until } or { 'ok', session, term, until }

local session = arg()
if not renew_session(session) then return done({ 'ended' }) end
local until_then = m.now + OPT.scale_lease
if m.lead_until > m.now then
  local leader = call('GET', LEAD)
  if leader ~= session then return done({ 'not_leading', leader, m.lead_term, m.lead_until }) end
  m.lead_until = max(m.lead_until, until_then)
else
  m.lead_term, m.lead_until = m.lead_term + 1, until_then
  call('SET', LEAD, session)
end
return done({ 'ok', session, m.lead_term, m.lead_until })
