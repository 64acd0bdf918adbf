-- A slice of the tenants that have limits, or of those that have something waiting.
--
-- ARGV     'tenants' or 'tenant_waiting', cursor, tenants at a time
-- Reply    { cursor, flat: tenant, record (packed) or count }

return call('HSCAN', P .. arg(), arg(), 'COUNT', arg())
