CREATE TABLE organizations (
    id                uuid         NOT NULL PRIMARY KEY,
    name              varchar(255) NOT NULL,
    slug              varchar(255) NOT NULL UNIQUE,
    contact_email     varchar(255) NOT NULL,
    contact_phone     varchar(50),
    subscription_plan varchar(20)  NOT NULL
        CHECK (subscription_plan IN ('free', 'starter', 'professional', 'enterprise')),
    max_buildings     int          NOT NULL DEFAULT 1,
    max_users         int          NOT NULL DEFAULT 3,
    is_active         boolean      NOT NULL DEFAULT true,
    created_at        timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now()
);

CREATE TABLE users (
    id              uuid         NOT NULL PRIMARY KEY,
    email           varchar(255) NOT NULL UNIQUE,
    password_hash   varchar(255) NOT NULL,
    first_name      varchar(100) NOT NULL,
    last_name       varchar(100) NOT NULL,
    role            varchar(20)  NOT NULL
        CHECK (role IN ('superadmin', 'syndic', 'accountant', 'owner')),
    organization_id uuid         REFERENCES organizations ON DELETE CASCADE,
    is_active       boolean      NOT NULL DEFAULT true,
    created_at      timestamptz  NOT NULL DEFAULT now(),
    updated_at      timestamptz  NOT NULL DEFAULT now()
);

CREATE TABLE user_building_access (
    user_id     uuid        NOT NULL REFERENCES users ON DELETE CASCADE,
    building_id uuid        NOT NULL REFERENCES buildings ON DELETE CASCADE,
    can_read    boolean     NOT NULL DEFAULT true,
    can_write   boolean     NOT NULL DEFAULT false,
    can_delete  boolean     NOT NULL DEFAULT false,
    granted_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, building_id)
);

ALTER TABLE buildings
    ADD COLUMN organization_id uuid REFERENCES organizations ON DELETE CASCADE;

CREATE INDEX idx_organizations_slug ON organizations (slug);
CREATE INDEX idx_users_email ON users (email);
CREATE INDEX idx_users_organization_id ON users (organization_id);
CREATE INDEX idx_users_role ON users (role);
CREATE INDEX idx_user_building_access_user_id ON user_building_access (user_id);
CREATE INDEX idx_user_building_access_building_id ON user_building_access (building_id);
CREATE INDEX idx_buildings_organization_id ON buildings (organization_id);

-- No password matches this hash: the application writes the real one when it starts.
INSERT INTO users (id, email, password_hash, first_name, last_name, role)
VALUES (
    '00000000-0000-0000-0000-000000000001', 'admin@koprogo.com', 'set when the application starts',
    'Admin', 'System', 'superadmin'
);
