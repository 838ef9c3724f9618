"""The ledger of measurements: one file per measurement, and pages whose figures are written from them.

An entry, docs/results/ledger/NAME.json, is a measurement: commands, commit, date, machine, seeds, and its figures
(entries.py says what is in it). A page shows a figure of it in one of three ways (pages.py):

    succeeds in 90.8 %<!-- demo.success --> of ...        what stands before the comment is the figure

    <!-- columns: demo.success/{} | demo.success/{}.interval | - -->

    | task | success | 95 % interval | note |              columns of the table below; {} is the row's first cell

    <!-- results: demo tabletop -->                        a whole table, one row per entry

    <!-- end of results -->

To publish a measurement:

    python -m benchmarks.ledger add demo runs/demo --title "Six tabletop tasks" --page docs/results/demo.md
    python -m benchmarks.ledger render         writes the figures into README.md and docs/, and
                                               docs/results/ledger.md, the list of all entries

tests/benchmarks/test_ledger.py holds that the pages say what the entries say, that README has no other figure, that
every entry's commands are what the command line takes today, and that its commit exists.
"""
