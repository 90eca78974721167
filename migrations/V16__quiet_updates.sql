-- An update that changes nothing leaves no row in the audit log, as it is for settings.

DROP TRIGGER projects_audit ON projects;
CREATE TRIGGER projects_audit AFTER INSERT OR DELETE ON projects
    FOR EACH ROW EXECUTE FUNCTION audit_change('project', 'name');
CREATE TRIGGER projects_audit_update AFTER UPDATE ON projects
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION audit_change('project', 'name');

DROP TRIGGER limits_audit ON limits;
CREATE TRIGGER limits_audit AFTER INSERT OR DELETE ON limits
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION audit_change('limit', 'limit_key');
CREATE TRIGGER limits_audit_update AFTER UPDATE ON limits
    FOR EACH ROW WHEN (pg_trigger_depth() = 0 AND OLD.* IS DISTINCT FROM NEW.*)
    EXECUTE FUNCTION audit_change('limit', 'limit_key');
