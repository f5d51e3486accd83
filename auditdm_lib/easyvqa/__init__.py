"""easy-VQA: a public data set of pictures with questions and answers, as pictures, truth, suite and models of an audit."""
