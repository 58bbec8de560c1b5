CREATE TYPE expense_category AS ENUM (
    'maintenance', 'repairs', 'insurance', 'utilities', 'cleaning', 'administration', 'works', 'other'
);
CREATE TYPE payment_status AS ENUM ('pending', 'paid', 'overdue', 'cancelled');

CREATE TABLE expenses (
    id             uuid             NOT NULL PRIMARY KEY,
    building_id    uuid             NOT NULL REFERENCES buildings ON DELETE CASCADE,
    category       expense_category NOT NULL,
    description    text             NOT NULL,
    amount         double precision NOT NULL CHECK (amount > 0),
    expense_date   timestamptz      NOT NULL,
    payment_status payment_status   NOT NULL DEFAULT 'pending',
    supplier       varchar(255),
    invoice_number varchar(100),
    created_at     timestamptz      NOT NULL DEFAULT now(),
    updated_at     timestamptz      NOT NULL DEFAULT now()
);

CREATE INDEX idx_expenses_building ON expenses (building_id);
CREATE INDEX idx_expenses_date ON expenses (expense_date);
CREATE INDEX idx_expenses_status ON expenses (payment_status);
CREATE INDEX idx_expenses_category ON expenses (category);
