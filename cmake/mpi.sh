# Sourced by scripts that start ranks: lets Open MPI run as root and with more ranks than cores, and leaves threads unbound.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
# Idle OpenMP threads and ranks sleep instead of spinning: there may be more of them than cores.
export OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
