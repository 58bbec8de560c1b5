DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY
        ARRAY['buildings', 'units', 'owners', 'expenses', 'meetings', 'documents']
    LOOP
        EXECUTE format('DROP POLICY tenant ON %I', tenant_table);
        EXECUTE format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', tenant_table);
    END LOOP;
END
$$;
