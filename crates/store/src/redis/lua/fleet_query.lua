-- What changed in the fleet, for who does not plan turns.
--
-- ARGV     version known, changes at most, 1 when a reload goes on from that version
-- Reply    see fleet.lua

local known, count, goes_on = number(), number(), number() == 1
return fleet_changes(known, false, count, goes_on)
