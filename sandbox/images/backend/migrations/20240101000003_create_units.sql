CREATE TYPE unit_type AS ENUM ('apartment', 'parking', 'cellar', 'commercial', 'other');

CREATE TABLE units (
    id           uuid             NOT NULL PRIMARY KEY,
    building_id  uuid             NOT NULL REFERENCES buildings ON DELETE CASCADE,
    unit_number  varchar(50)      NOT NULL,
    unit_type    unit_type        NOT NULL,
    floor        int,
    surface_area double precision NOT NULL CHECK (surface_area > 0),
    quota        double precision NOT NULL CHECK (quota > 0 AND quota <= 1000),
    owner_id     uuid             REFERENCES owners ON DELETE SET NULL,
    created_at   timestamptz      NOT NULL DEFAULT now(),
    updated_at   timestamptz      NOT NULL DEFAULT now(),
    UNIQUE (building_id, unit_number)
);

CREATE INDEX idx_units_building ON units (building_id);
CREATE INDEX idx_units_owner ON units (owner_id);
CREATE INDEX idx_units_unit_number ON units (unit_number);
