"""`python -m auditdm_lib.run`: the same as the command `auditdm`."""

from auditdm_lib.run.chain import main

main()
