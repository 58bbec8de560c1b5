CREATE TABLE audit_logs (
    id              uuid        NOT NULL PRIMARY KEY,
    "timestamp"     timestamptz NOT NULL DEFAULT now(),
    event_type      text        NOT NULL,
    user_id         uuid,
    organization_id uuid,
    resource_type   text,
    resource_id     uuid,
    ip_address      text,
    user_agent      text,
    metadata        jsonb,
    success         boolean     NOT NULL DEFAULT true,
    error_message   text,
    created_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT fk_audit_logs_user_id
        FOREIGN KEY (user_id) REFERENCES users ON DELETE SET NULL,
    CONSTRAINT fk_audit_logs_organization_id
        FOREIGN KEY (organization_id) REFERENCES organizations ON DELETE SET NULL
);

CREATE INDEX idx_audit_logs_timestamp ON audit_logs ("timestamp" DESC);
CREATE INDEX idx_audit_logs_event_type ON audit_logs (event_type);
CREATE INDEX idx_audit_logs_user_id ON audit_logs (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX idx_audit_logs_organization_id ON audit_logs (organization_id)
    WHERE organization_id IS NOT NULL;
CREATE INDEX idx_audit_logs_success ON audit_logs (success) WHERE success = false;
CREATE INDEX idx_audit_logs_org_timestamp ON audit_logs (organization_id, "timestamp" DESC)
    WHERE organization_id IS NOT NULL;
CREATE INDEX idx_audit_logs_metadata ON audit_logs USING gin (metadata) WHERE metadata IS NOT NULL;
