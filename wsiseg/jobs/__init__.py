"""Many slides: the frozen list, one record per slide, resume, shards, and the runners that share the work.

Everything here is what a parent process needs and imports only the standard library (and `wsiseg.errors`, `units`,
`limits`): the network, its runtime and the decoders live in supervised child processes, so a decoder that crashes
takes one slide with it and not the job.

    store      files of a job: atomic writes on a disk (`temporary`), or objects behind an fsspec URL (`urlstore`)
    manifest   which slides, in which order, under which keys
    records    one finished slide, or the reason why it failed
    folder     the folder of a job: manifest, identity, records; what is left to do
    merge      the CSV from the records, whole or not at all
    work       tasks -> records inside one process; `run_local` is that with nothing around it
    worker     the child process; `child` is its parent's end of it, `pool` the supervisor of several
    checkpoint the state of a slide in progress; `pace` says when it is saved
    segmenter  what a worker runs: the real processor, made from plain data
    shards     which part of the manifest is mine; guided chunks; `plan` shares them out
    slurm, dask_cluster   the cluster engines
    launch     the one entry that the command line calls
"""
