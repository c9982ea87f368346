//! How good this node's way to a device is, where another node has a way to it, too (SPC-4 section 5.15).

/// What a way is good for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AccessState {
    /// It is served here.
    Optimized = 0,
    /// The other node serves it, and can be asked.
    NonOptimized = 1,
    /// It is about to be one or the other.
    Transitioning = 2,
    /// Neither, until somebody does something about it.
    Unavailable = 3,
}

impl AccessState {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Transitioning => "transitioning",
            Self::Unavailable => "unavailable",
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Optimized,
            1 => Self::NonOptimized,
            2 => Self::Transitioning,
            _ => Self::Unavailable,
        }
    }
}

/// Which of a pair a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeSide {
    /// Node 0.
    First,
    /// Node 1.
    Second,
}

impl NodeSide {
    /// Its number in the array.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// How a pair's nodes reach a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Which one this node is.
    pub node: NodeSide,
    /// How good its way is,
    pub own: AccessState,
    /// and the other node's, as far as this one knows.
    pub peer: AccessState,
    /// Rises each time this node begins to serve: what the other node may have changed meanwhile has to be read again.
    pub epoch: u64,
}

/// Who has a way to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// This node alone.
    Local,
    /// Two nodes.
    Shared(Shared),
}

impl Access {
    /// How good this node's way is.
    pub fn state(&self) -> AccessState {
        match self {
            Self::Local => AccessState::Optimized,
            Self::Shared(shared) => shared.own,
        }
    }

    /// Which one of a pair this node is; the first where it is alone.
    pub fn side(&self) -> NodeSide {
        match self {
            Self::Local => NodeSide::First,
            Self::Shared(shared) => shared.node,
        }
    }

    /// What [`Access::unpack`] takes, beside the epoch.
    pub(crate) fn pack(self) -> (u32, u64) {
        match self {
            Self::Local => (0, 0),
            Self::Shared(Shared { node, own, peer, epoch }) => {
                let packed = 1 | u32::from(node.number()) << 8 | (own as u32) << 16 | (peer as u32) << 24;
                (packed, epoch)
            }
        }
    }

    pub(crate) fn unpack(packed: u32, epoch: u64) -> Self {
        let [shared, node, own, peer] = packed.to_le_bytes();
        if shared == 0 {
            return Self::Local;
        }
        let node = if node == 0 { NodeSide::First } else { NodeSide::Second };
        let (own, peer) = (AccessState::from_code(own), AccessState::from_code(peer));
        Self::Shared(Shared { node, own, peer, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_survives_being_packed() {
        let states = [
            AccessState::Optimized,
            AccessState::NonOptimized,
            AccessState::Transitioning,
            AccessState::Unavailable,
        ];
        for node in [NodeSide::First, NodeSide::Second] {
            for (own, peer) in states.iter().flat_map(|own| states.map(|peer| (*own, peer))) {
                let access = Access::Shared(Shared { node, own, peer, epoch: 77 });
                let (packed, epoch) = access.pack();
                assert_eq!(Access::unpack(packed, epoch), access);
            }
        }
        assert_eq!(Access::unpack(0, 0), Access::Local);
    }
}
