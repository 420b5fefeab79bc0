"""Federation and components; they join the cluster as a third role."""
