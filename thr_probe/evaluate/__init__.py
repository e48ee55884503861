"""`thr-probe eval`: greedy accuracy and Pass@K of a policy on problem sets, saved as traces."""
