"""What several commands share: parsing options, and the policy, world and episodes of an evaluation."""
