-- Ends a session at once: its claims go back to the queues with their scores.
--
-- ARGV     session
-- Reply    {}

end_session(arg())
return done({})
