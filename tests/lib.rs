//! Parts shared by the integration tests and the fake agent.
