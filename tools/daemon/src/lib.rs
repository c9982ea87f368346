//! gemeld, the node.
