"""Every codec on one curve: bytes of labels against the accuracy of fresh students."""
