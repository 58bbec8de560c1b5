CREATE TYPE document_type AS ENUM (
    'meeting_minutes', 'financial_statement', 'invoice', 'contract', 'regulation', 'works_quote', 'other'
);

CREATE TABLE documents (
    id                 uuid          NOT NULL PRIMARY KEY,
    building_id        uuid          NOT NULL REFERENCES buildings ON DELETE CASCADE,
    document_type      document_type NOT NULL,
    title              varchar(255)  NOT NULL,
    description        text,
    file_path          text          NOT NULL,
    file_size          bigint        NOT NULL CHECK (file_size > 0),
    mime_type          varchar(100)  NOT NULL,
    uploaded_by        uuid          NOT NULL,
    related_meeting_id uuid          REFERENCES meetings ON DELETE SET NULL,
    related_expense_id uuid          REFERENCES expenses ON DELETE SET NULL,
    created_at         timestamptz   NOT NULL DEFAULT now(),
    updated_at         timestamptz   NOT NULL DEFAULT now()
);

CREATE INDEX idx_documents_building ON documents (building_id);
CREATE INDEX idx_documents_type ON documents (document_type);
CREATE INDEX idx_documents_meeting ON documents (related_meeting_id);
CREATE INDEX idx_documents_expense ON documents (related_expense_id);
CREATE INDEX idx_documents_created_at ON documents (created_at);
