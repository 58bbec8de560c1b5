CREATE TABLE refresh_tokens (
    id         uuid         NOT NULL PRIMARY KEY,
    user_id    uuid         NOT NULL REFERENCES users ON DELETE CASCADE,
    token      varchar(512) NOT NULL UNIQUE,
    expires_at timestamptz  NOT NULL,
    revoked    boolean      NOT NULL DEFAULT false,
    created_at timestamptz  NOT NULL DEFAULT now(),
    updated_at timestamptz  NOT NULL DEFAULT now()
);

CREATE INDEX idx_refresh_tokens_user_id ON refresh_tokens (user_id);
CREATE INDEX idx_refresh_tokens_token ON refresh_tokens (token);
CREATE INDEX idx_refresh_tokens_expires_at ON refresh_tokens (expires_at);
CREATE INDEX idx_refresh_tokens_revoked ON refresh_tokens (revoked);

-- As in KoproGo, nothing calls this: the table grows by a row for each login.
CREATE FUNCTION cleanup_expired_refresh_tokens() RETURNS void LANGUAGE sql AS
$$ DELETE FROM refresh_tokens WHERE revoked OR expires_at < now() $$;
