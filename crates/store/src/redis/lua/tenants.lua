-- Tenants that have limits, and how many wait of each that has something waiting.
--
-- Reply    { limits (flat: tenant, record packed), waiting (flat: tenant, count) }

return { call('HGETALL', P .. 'tenants'), call('HGETALL', P .. 'tenant_waiting') }
