// Segments a folder of slides in shards and merges them. All tasks must see the same absolute paths:
//
//     nextflow run main.nf --slides /data/slides --out /data/submission.csv --shards 8 --options '--memory 8GiB'

params.slides = null
params.out = null
params.shards = 8
params.options = ''

process SHARD {
    tag "${i}"
    cpus 4
    memory '8 GB'
    accelerator 1
    // 75: stopped by a signal, resumable; 128 and more: killed
    errorStrategy { task.exitStatus == 75 || task.exitStatus >= 128 ? 'retry' : 'terminate' }
    maxRetries 5

    input:
    val i

    output:
    val i

    script:
    // 1 says that some slides failed: their records hold the reasons, and the merge tells them
    """
    wsiseg run '${params.slides}' -o '${params.out}' --shard ${i}/${params.shards} ${params.options} || [ \$? -eq 1 ]
    """
}

process MERGE {
    input:
    val done

    script:
    """
    wsiseg merge '${params.out}' || [ \$? -eq 1 ]
    """
}

workflow {
    if (!params.slides || !params.out) {
        error 'give --slides FOLDER and --out CSV as absolute paths'
    }
    SHARD(Channel.of(0..<params.shards).flatten())
    MERGE(SHARD.out.collect())
}
