DO $$
DECLARE
    tenant_table text;
BEGIN
    FOREACH tenant_table IN ARRAY ARRAY['units', 'owners', 'expenses', 'meetings', 'documents'] LOOP
        EXECUTE format(
            'ALTER TABLE %1$I ADD COLUMN organization_id uuid REFERENCES organizations ON DELETE CASCADE',
            tenant_table);
        EXECUTE format(
            'CREATE INDEX %I ON %I (organization_id)',
            'idx_' || tenant_table || '_organization_id', tenant_table);
    END LOOP;

    FOREACH tenant_table IN ARRAY
        ARRAY['buildings', 'units', 'owners', 'expenses', 'meetings', 'documents']
    LOOP
        EXECUTE format(
            'CREATE INDEX %I ON %I (organization_id, created_at DESC)',
            'idx_' || tenant_table || '_org_created', tenant_table);
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', tenant_table);
        EXECUTE format(
            'CREATE POLICY tenant ON %I USING '
            '(organization_id::text = current_setting(''app.organization'', true))',
            tenant_table);
    END LOOP;
END
$$;
