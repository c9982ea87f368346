//! Authentication groups, and which CHAP is asked for where.

use std::rc::Rc;

use iscsi::chap::Algorithm;

use super::Target;
use super::node::ExportError;
use crate::auth::{AuthGroup, AuthPolicy, User};

impl Target {
    /// Adds an authentication group.
    ///
    /// # Errors
    /// The tag is taken, or two users have one name.
    pub fn add_auth_group(&mut self, tag: i32, group: impl Into<AuthGroup>) -> Result<(), ExportError> {
        let group = group.into();
        if self.auth_groups.contains_key(&tag) {
            return Err(ExportError::AuthGroupExists(tag));
        }
        let mut names: Vec<&str> = group.users.iter().map(User::name).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ExportError::UserExists { tag, user: pair[0].to_owned() });
        }
        self.auth_groups.insert(tag, group);
        Ok(())
    }

    /// Removes an authentication group.
    ///
    /// # Errors
    /// There is none, or something asks for its accounts.
    pub fn remove_auth_group(&mut self, tag: i32) -> Result<(), ExportError> {
        if !self.auth_groups.contains_key(&tag) {
            return Err(ExportError::NoAuthGroup(tag));
        }
        if let Some(user) = self.auth_user(tag) {
            return Err(ExportError::AuthGroupInUse { tag, user });
        }
        self.auth_groups.remove(&tag);
        Ok(())
    }

    /// Who asks for a group's accounts, in words.
    fn auth_user(&self, tag: i32) -> Option<String> {
        if self.discovery_auth.group == tag {
            return Some("discovery".to_owned());
        }
        let asks = |policy: AuthPolicy| policy.group == tag;
        let portal = self.portal_groups.values().find(|group| group.auth.is_some_and(asks));
        let portal = portal.map(|group| format!("portal group {}", group.tag));
        let node = || self.nodes.values().find(|node| asks(node.config.borrow().auth));
        portal.or_else(|| node().map(|node| format!("target {}", node.name())))
    }

    /// Adds a user to a group. Logins under way keep the users that they began with.
    ///
    /// # Errors
    /// There is no such group, or it has the user.
    pub fn add_account(&mut self, tag: i32, user: User) -> Result<(), ExportError> {
        let group = self.auth_groups.get_mut(&tag).ok_or(ExportError::NoAuthGroup(tag))?;
        if group.users.iter().any(|known| known.name() == user.name()) {
            return Err(ExportError::UserExists { tag, user: user.name().to_owned() });
        }
        group.users = group.users.iter().cloned().chain([user]).collect();
        Ok(())
    }

    /// Removes a user's account from a group. His sessions go on.
    ///
    /// # Errors
    /// There is no such group or user.
    pub fn remove_account(&mut self, tag: i32, user: &str) -> Result<(), ExportError> {
        let group = self.auth_groups.get_mut(&tag).ok_or(ExportError::NoAuthGroup(tag))?;
        let rest: Rc<[User]> = group.users.iter().filter(|known| known.name() != user).cloned().collect();
        if rest.len() == group.users.len() {
            return Err(ExportError::NoUser { tag, user: user.to_owned() });
        }
        group.users = rest;
        Ok(())
    }

    /// Each group's users, and the hashes that it takes.
    pub fn auth_groups(&self) -> impl Iterator<Item = (i32, &[User], &[Algorithm])> {
        self.auth_groups.iter().map(|(tag, group)| (*tag, &*group.users, &*group.algorithms))
    }

    /// Sets the CHAP of discovery sessions.
    ///
    /// # Errors
    /// There is no such group.
    pub fn set_discovery_auth(&mut self, policy: AuthPolicy) -> Result<(), ExportError> {
        self.check_policy(policy)?;
        self.discovery_auth = policy;
        Ok(())
    }

    /// The CHAP of discovery sessions.
    pub fn discovery_auth(&self) -> AuthPolicy {
        self.discovery_auth
    }

    /// Sets the CHAP of discovery sessions at a portal group; with `None`, that of all.
    ///
    /// # Errors
    /// There is no such portal group or authentication group.
    pub fn set_portal_group_auth(&mut self, tag: i32, policy: Option<AuthPolicy>) -> Result<(), ExportError> {
        self.check_policy(policy.unwrap_or_default())?;
        self.portal_groups.get_mut(&tag).ok_or(ExportError::NoPortalGroup(tag))?.auth = policy;
        Ok(())
    }

    /// Sets the CHAP of a target's sessions from the next login on.
    ///
    /// # Errors
    /// There is no such target or authentication group.
    pub fn set_node_auth(&mut self, name: &str, policy: AuthPolicy) -> Result<(), ExportError> {
        self.check_policy(policy)?;
        let node = self.named(name)?;
        node.config.borrow_mut().auth = policy;
        Ok(())
    }

    pub(super) fn check_policy(&self, policy: AuthPolicy) -> Result<(), ExportError> {
        match policy.group {
            0 => Ok(()),
            tag if self.auth_groups.contains_key(&tag) => Ok(()),
            tag => Err(ExportError::NoAuthGroup(tag)),
        }
    }
}
