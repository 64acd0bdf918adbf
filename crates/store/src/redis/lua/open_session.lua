-- Begins (or renews) a server's session.
--
-- ARGV     session, address
-- Reply    { lease }

local session, address = arg(), arg()
call('ZADD', SESSIONS, m.now + OPT.session_lease, session)
call('HSET', session_key(session), 'address', address)
return done({ OPT.session_lease })
